"""Which rounds are timed next."""

import pytest

from query.evaluation.raw.timings import Round
from query.evaluation.running.timed import next_block


def rounds(block, keys, *numbers):
    return [
        Round(
            number=number,
            block=block,
            kind="tower",
            keys=list(keys),
            seconds=[1.0] * len(keys),
            num_items=[4] * len(keys),
            environment_key="here",
        )
        for number in numbers
    ]


@pytest.mark.parametrize(
    ("found", "keys", "expected"),
    [
        ([], "nab", (0, [0, 1, 2], ["n", "a", "b"])),
        ([], "n", (0, [0, 1, 2], ["n"])),
        (rounds(0, "nab", 0, 1, 2), "nab", None),
        (rounds(0, "nab", 0, 1, 2), "na", None),  # the grid shrank
        (rounds(0, "nab", 0), "nab", (0, [1, 2], ["n", "a", "b"])),
        (rounds(0, "bna", 0, 2), "nab", (0, [1], ["n", "a", "b"])),  # a round was deleted
        (rounds(0, "na", 0, 1, 2), "nab", (1, [0, 1, 2], ["n", "b"])),  # b came later
        (rounds(0, "na", 0), "nab", (0, [1, 2], ["n", "a"])),  # what was cut short comes first
        (rounds(0, "na", 0, 1, 2) + rounds(1, "nb", 0), "nab", (1, [1, 2], ["n", "b"])),
        (rounds(0, "nab", 0), "na", (1, [0, 1], ["n", "a"])),  # rounds of one block run the same conditions
    ],
)
def test_what_is_missing_is_timed_next(found, keys, expected):
    assert next_block(found, list(keys), 3) == expected


def test_what_is_compared_has_rounds_together():
    found = rounds(0, "na", 0, 1, 2)
    assert next_block(found, list("nabc"), 3, [("b", "a")]) == (1, [0, 1, 2], ["n", "a", "b", "c"])
    assert next_block(found, list("nab"), 3, [("a", "b")]) == (1, [0, 1, 2], ["n", "a", "b"])
    assert next_block(found, list("na"), 3, [("a", "n")]) is None


def test_more_rounds_go_on_with_each_block():
    found = rounds(0, "na", 0, 1) + rounds(1, "nb", 0, 1)
    blocks = []
    while (todo := next_block(found, list("nab"), 4)) is not None:
        block, numbers, keys = todo
        blocks.append((block, numbers))
        found += rounds(block, keys, *numbers)
    assert blocks == [(0, [2, 3]), (1, [2, 3])]
