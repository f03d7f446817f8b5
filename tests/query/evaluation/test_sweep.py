"""`clipsieve sweep` from a grid to a report, with a tiny model."""

import json
import shutil

import pytest

from query.cli.main import main
from tests.kit.small_sweep import SmallSweep, run_until_killed


@pytest.fixture
def sweep(tmp_path, photos, tiny_model, few_of_all):
    """A sweep that has not run yet."""
    small = SmallSweep(tmp_path, photos, tiny_model)
    small.write_grid(rounds=4)
    return small


def results_of(sweep):
    """The results without when and by which command they were made."""
    found = json.loads(sweep.out.results.read_bytes())
    del found["record"]["commands"]
    return found


def test_a_sweep_writes_results_and_a_report(sweep, capsys):
    assert main(["sweep", str(sweep.grid), "--out", str(sweep.out.root), "--export", "clip_benchmark", "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert [found["condition"]["name"] for found in printed["conditions"]][:3] == ["none", "lossless", "balanced"]
    assert {found["condition"]["role"] for found in printed["conditions"]} == {"baseline", "condition", "rival"}
    assert all(found["speed"]["num_rounds"] == 4 for found in printed["conditions"])
    assert "image vectors measured, 0 kept" in captured.err
    assert json.loads(sweep.out.results.read_bytes()) == printed
    assert "<html" in (sweep.out.root / "report.html").read_text()
    assert any((sweep.out.root / "exports" / "clip_benchmark").rglob("*.json"))
    assert not (sweep.out.root / "lock.json").exists()


def test_a_report_needs_only_the_raw_files(sweep, capsys):
    assert main(["sweep", str(sweep.grid), "--out", str(sweep.out.root)]) == 0
    before, times = results_of(sweep), sweep.times("raw", "data")
    shutil.rmtree(sweep.root / "photos")
    shutil.rmtree(sweep.out.root / "vectors")
    sweep.grid.unlink()
    sweep.out.results.unlink()
    assert main(["sweep", "--out", str(sweep.out.root), "--report-only"]) == 0
    assert results_of(sweep) == before
    assert sweep.times("raw", "data") == times


def test_vectors_may_be_deleted_when_everything_is_ranked(sweep, capsys):
    sweep.run()
    before = sweep.contents("raw/photos")
    shutil.rmtree(sweep.out.root / "vectors")
    sweep.run()
    assert sweep.contents("raw/photos") == before


def test_a_killed_sweep_has_no_report_and_says_what_to_run(sweep, capsys):
    run_until_killed(sweep, "embed", 60)
    assert main(["sweep", "--out", str(sweep.out.root), "--report-only"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "ranks.parquet is missing" in line
    assert not (sweep.out.root / "report.html").exists()
    sweep.run()
    assert main(["sweep", "--out", str(sweep.out.root), "--report-only"]) == 0
    assert (sweep.out.root / "report.html").exists()


def test_two_sweeps_into_one_folder_are_refused(sweep, capsys):
    sweep.out.root.mkdir()
    (sweep.out.root / "lock.json").write_text(json.dumps({"owner": "x", "host": "elsewhere", "pid": 1, "place": "?"}))
    assert main(["sweep", str(sweep.grid), "--out", str(sweep.out.root)]) == 4
    assert "is in use by process 1 on elsewhere" in capsys.readouterr().err


def test_the_grid_is_refused_before_anything_is_written(sweep, capsys):
    sweep.grid.write_text(sweep.grid.read_text().replace("rounds: 4", "rounds: 1"))
    assert main(["sweep", str(sweep.grid), "--out", str(sweep.out.root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "grid.yaml, line 3: rounds = 1" in line
    assert not sweep.out.root.exists()
