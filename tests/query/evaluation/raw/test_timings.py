"""Timed rounds: one file each, read in order."""

import dataclasses

import pytest

from pipeline.errors import StoreError
from query.evaluation.raw.timings import Round, read_rounds, write_round

ROUND = Round(
    number=0,
    block=0,
    kind="tower",
    keys=["none-1", "l2-2"],
    seconds=[1.5, 0.75],
    num_items=[64, 64],
    environment_key="e",
)


def test_rounds_are_read_in_order(tmp_path):
    rounds = [
        dataclasses.replace(ROUND, kind="query", keys=["ivf-3"], seconds=[0.1], num_items=[1000]),
        ROUND,
        dataclasses.replace(ROUND, number=1, keys=["l2-2", "none-1"]),
        dataclasses.replace(ROUND, number=10),
        dataclasses.replace(ROUND, block=1, environment_key="other"),
    ]
    for timed in reversed(rounds):
        write_round(tmp_path / "timings", timed)
    assert read_rounds(tmp_path / "timings") == rounds


def test_without_a_folder_there_are_no_rounds(tmp_path):
    assert read_rounds(tmp_path / "timings") == []


def test_a_round_that_was_cut_is_refused(tmp_path):
    path = write_round(tmp_path, ROUND)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=f"{path.name} is damaged.*delete it"):
        read_rounds(tmp_path)
