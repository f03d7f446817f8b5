"""What hits say as a whole, and where the weak ones begin, in the table and on the sheet."""

import pytest
from PIL import Image

from query.cli.search import print_hits
from query.hits.hit import Hit
from query.hits.notes import WEAK_BELOW, num_strong
from query.hits.relevance import WEAK
from query.pictures.sheet import write_sheet
from tests.kit.hits import hits_of


def hits(*relevances, duplicates=0, uri="file:///gone.png", **options):
    made = [
        Hit(rank=rank, id=rank, key=f"{rank}.png", uri=uri, score=1 / rank, relevance=relevance, duplicates=duplicates)
        for rank, relevance in enumerate(relevances, 1)
    ]
    return hits_of(made, **options)


STRONG, FAINT = WEAK + 0.5, WEAK - 0.5


@pytest.mark.parametrize(
    ("relevances", "expected"),
    [
        ((STRONG, WEAK, FAINT), 2),
        ((FAINT, FAINT), 0),
        ((STRONG, FAINT, STRONG), 3),  # a sum of scores may be out of order; nothing that matches is below the line
        ((None, None), 2),
        ((), 0),
    ],
)
def test_where_the_weak_hits_begin(relevances, expected):
    assert num_strong(hits(*relevances)) == expected


@pytest.mark.parametrize(
    ("found", "note"),
    [
        (hits(STRONG, FAINT), None),
        (hits(None, None), None),
        (
            hits(FAINT),
            f"all matches are weak: the relevance of the best hit is {FAINT:.2f}, and chance leads as far as {WEAK:g}",
        ),
        (hits(STRONG, k=3), "1 of 3 hits: no other image was found"),
        (hits(STRONG, k=3, where=("a > 1",)), "1 of 3 hits: no other image meets the condition"),
        (hits(k=3, where=("a > 1", "b")), "no hits: no image meets the conditions"),
        (
            hits(STRONG, k=3, where=("a > 1",), min_relevance=4.25, unique=True),
            "1 of 3 hits: no other image meets the condition and has a relevance of at least 4.25 and differs enough "
            "from the hits",
        ),
        (
            hits(STRONG, STRONG, duplicates=2, unique=0.9),
            "4 near-duplicates of hits are left out (cosine of at least 0.9)",
        ),
        (hits(STRONG, duplicates=1, unique=0.9), "1 near-duplicate of a hit is left out (cosine of at least 0.9)"),
    ],
)
def test_notes(found, note):
    assert found.notes == (() if note is None else (note,))
    assert found.to_dict()["notes"] == list(found.notes)


def test_the_table_has_a_line_above_the_weak_hits(capsys):
    print_hits("a query", hits(STRONG, STRONG, FAINT, FAINT))
    lines = capsys.readouterr().out.splitlines()
    [place] = [number for number, line in enumerate(lines) if WEAK_BELOW in line]
    assert "2.png" in lines[place - 2]
    assert "3.png" in lines[place + 1]
    print_hits("a query", hits(FAINT, FAINT))
    shown = capsys.readouterr().out
    assert WEAK_BELOW not in shown
    assert "all matches are weak" in shown
    assert "duplicates" not in shown


def test_the_table_counts_near_duplicates_where_they_are_left_out(capsys):
    print_hits("a query", hits(STRONG, duplicates=17, unique=True))
    shown = capsys.readouterr().out
    assert "duplicates" in shown
    assert "│         17 │" in shown


def test_the_sheet_begins_a_row_for_weak_hits(tmp_path):
    Image.new("RGB", (30, 20), (200, 0, 0)).save(tmp_path / "red.png")
    uri = (tmp_path / "red.png").as_uri()

    def rows(*relevances):
        write_sheet(tmp_path / "sheet.png", [("red", hits(*relevances, uri=uri))])
        with Image.open(tmp_path / "sheet.png") as sheet:
            reds = [sheet.getpixel((20, y)) == (200, 0, 0) for y in range(sheet.height)]
        return sum(now and not before for before, now in zip([False, *reds], reds, strict=False))

    assert rows(STRONG, STRONG, STRONG) == 1
    assert rows(STRONG, FAINT, FAINT) == 2
    assert rows(FAINT, FAINT, FAINT) == 1
