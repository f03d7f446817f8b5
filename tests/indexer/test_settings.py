"""Settings of `clipsieve index`: sizes with units, and choices that exclude each other."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from indexer.settings import IndexSettings


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("600M", 600_000_000), ("1.5GB", 1_500_000_000), ("2GiB", 2 << 30), ("64k", 64_000), ("123", 123), (7, 7)],
)
def test_sizes_have_units(text, num_bytes):
    assert IndexSettings(store=Path("x"), max_index_memory=text).max_index_memory == num_bytes


@pytest.mark.parametrize("text", ["", "lots", "5X", "-3M", "0"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValidationError):
        IndexSettings(store=Path("x"), max_build_memory=text)


@pytest.mark.parametrize(
    "wrong", [{"show": True, "check": True}, {"proof": False, "min_recall": 0.9}, {"min_recall": 1.1}, {"threads": 0}]
)
def test_choices_that_exclude_each_other(wrong):
    with pytest.raises(ValidationError):
        IndexSettings(store=Path("x"), **wrong)
