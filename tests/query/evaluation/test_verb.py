"""`clipsieve sweep` on the command line, before anything is measured."""

import pytest

from query.cli.main import main
from query.evaluation.settings import SweepSettings


def test_an_earlier_plan_is_printed_in_the_new_spelling(tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text("- name: a\n  policies: [fast]\n")
    assert main(["sweep", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert "is a plan of `clipsieve bench policies`" in captured.err
    assert captured.out.endswith("series:\n  - name: a\n    policies: [fast]\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "is_gated"),
    [({}, False), ({"gate": True}, True), ({"strict": True}, True), ({"baseline": "old"}, True)],
)
def test_what_checks_the_gates(given, is_gated):
    assert SweepSettings(grid="grid.yaml", out="out", **given).gates == is_gated


def test_formats_are_a_list():
    assert SweepSettings(out="out", report_only=True, export="trec, mteb").formats() == ["trec", "mteb"]
    assert SweepSettings(keys=True).formats() == []


def test_nothing_to_report(tmp_path, capsys):
    assert main(["sweep", "--out", str(tmp_path), "--report-only"]) == 4
    assert capsys.readouterr().err.count("\n") == 1
