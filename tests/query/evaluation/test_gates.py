"""Bounds on results: what is OK, FAIL or DRIFT, and against what."""

import dataclasses
import json

import pytest

from pipeline.errors import ConfigError, GateFailed, StoreError
from query.cli.main import main
from query.evaluation.earlier import compare, open_earlier
from query.evaluation.gates import check, recorded_grid, refuse_failed
from query.evaluation.grid.names import metrics_of
from query.evaluation.grid.read import read_grid
from query.evaluation.results import Estimate
from tests.kit.answers import photographs
from tests.kit.finished_sweep import GRID, NUM_IMAGES, FinishedSweep, key_of

R5 = "image_retrieval_recall@5"


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """A sweep, and an earlier one of the same images in which `slow` was faster and `worse` was better."""
    root = tmp_path_factory.mktemp("sweeps")
    speeds = {"whole": 1, "slow": 1.2, "fast": 1.7}
    noise = {"whole": 0, "slow": 0.002, "fast": 0.002, "worse": 0.5, "rival": 0.5}
    new = FinishedSweep(root / "new", noise, speeds=speeds, roles={"rival": "rival"}, environment={"torch": "2"})
    earlier_noise = {"whole": 0, "slow": 0.002, "fast": 0.002, "worse": 0, "gone": 0}
    FinishedSweep(root / "old", earlier_noise, speeds=speeds | {"slow": 1.5}, environment={"torch": "1"})
    return new, new.results, root / "old"


@pytest.fixture
def gates(sweeps, tmp_path):
    """Checks bounds on the sweep: the lines under `require`, and other keys of the grid."""

    def run(require, baseline=None, more=""):
        new, results, _ = sweeps
        path = tmp_path / "gates.yaml"
        path.write_text(f"{GRID}{more}require:\n{require}")
        grid = read_grid(path)
        return check(results, grid, new.folder, baseline), grid

    return run


def statuses(found):
    return {row.condition: row.status for row in found.rows}


@pytest.mark.parametrize(
    ("low", "high", "bound", "status"),
    [
        (0.0, 0.01, "{max_loss: 0.01}", "OK"),
        (-0.02, -0.01, "{max_loss: 0.01}", "OK"),
        (0.009, 0.011, "{max_loss: 0.01}", "DRIFT"),
        (0.011, 0.02, "{max_loss: 0.01}", "FAIL"),
        (0.0, 0.0, "{max_loss: 0}", "OK"),
        (float("nan"), float("nan"), "{max_loss: 0.01}", "DRIFT"),
    ],
)
def test_the_whole_interval_decides(sweeps, tmp_path, low, high, bound, status):
    new, results, _ = sweeps
    middle = (low + high) / 2
    found = results.of(key_of("fast"))
    on = dataclasses.replace(found.on["small"], differences={R5: Estimate(-middle, -high, -low)})
    results = dataclasses.replace(results, conditions=[dataclasses.replace(found, on={"small": on})])
    (tmp_path / "grid.yaml").write_text(f"{GRID}require:\n  {R5}: {bound}\n")
    (row,) = check(results, read_grid(tmp_path / "grid.yaml"), new.folder).rows
    assert row.status == status
    assert row.estimate.value == pytest.approx(middle, nan_ok=True)


def test_bounds_hold_for_the_series_or_for_rivals_too(gates):
    found, _ = gates(f"  {R5}: {{min: 0.8}}\n")
    assert statuses(found) == {"slow": "OK", "fast": "OK", "worse": "FAIL"}
    found, _ = gates(f"  {R5}: {{min: 0.8}}\n", more="gates_of: all\n")
    assert statuses(found) == {"slow": "OK", "fast": "OK", "worse": "FAIL", "rival": "FAIL"}


def test_recall_speed_and_ranks_have_bounds_on_both_sides(gates):
    lines = "  speedup: {min: 1.5, max: 1.6}\n  image_retrieval_median_rank: {max: 1, max_loss: 0}\n"
    found, _ = gates(lines)
    by_bound = {(row.condition, row.metric, row.kind): row.status for row in found.rows}
    assert by_bound["slow", "speedup", "min"] == "FAIL"
    assert by_bound["slow", "speedup", "max"] == "OK"
    assert by_bound["fast", "speedup", "min"] == "OK"
    assert by_bound["fast", "speedup", "max"] == "FAIL"
    assert by_bound["fast", "image_retrieval_median_rank", "max"] == "OK"
    assert by_bound["worse", "image_retrieval_median_rank", "max_loss"] == "FAIL"  # a higher rank is a loss
    assert found.notes == [
        "speedup: min is not checked on 1 condition without it: 'worse'",
        "speedup: max is not checked on 1 condition without it: 'worse'",
    ]


def test_a_failure_is_one_line_with_key_line_number_and_interval(gates, tmp_path):
    found, grid = gates(f"  {R5}: {{max_loss: 0.01}}\n  speedup:\n    min: 1.5\n")
    assert found.counts == {"OK": 1, "FAIL": 2, "DRIFT": 2}
    with pytest.raises(GateFailed) as caught:
        refuse_failed(found)
    message = str(caught.value)
    assert caught.value.exit_code == 6
    assert message.startswith(f"{grid.path}, line 5: require.{R5}.max_loss: FAIL for 'worse' on small: ")
    assert "expected a loss of at most 1.0 points against the unpruned model; 2 of 5 gates failed" in message
    assert "\n" not in message


def test_drift_fails_only_if_strict(gates):
    found, _ = gates(f"  {R5}: {{max_loss: 0.01}}\n")
    drifting = dataclasses.replace(found, rows=[row for row in found.rows if row.status == "DRIFT"])
    assert drifting.rows
    refuse_failed(drifting)
    with pytest.raises(GateFailed, match="DRIFT for 'slow'"):
        refuse_failed(drifting, strict=True)


def test_results_hold_the_gates_as_plain_values(gates, sweeps):
    found, _ = gates(f"  {R5}: {{max_loss: 0.01}}\n")
    values = json.loads(json.dumps(dataclasses.replace(sweeps[1], gates=found).as_json()))["gates"]
    assert [(row["condition"], row["status"]) for row in values["rows"]] == list(statuses(found).items())
    assert values["rows"][0]["estimate"].keys() == {"value", "low", "high", "method", "detectable"}
    assert sweeps[1].as_json()["gates"] is None


def test_without_a_grid_file_the_bounds_are_those_of_the_record(tmp_path):
    sweep = FinishedSweep(tmp_path / "out", {"whole": 0, "worse": 0.5}, grid=f"{GRID}require:\n  {R5}: {{min: 0.8}}\n")
    (row,) = check(sweep.results, recorded_grid(sweep.folder), sweep.folder).rows
    path = sweep.folder.record
    line = int(row.place.removeprefix(f"{path}, line ").partition(":")[0])
    assert row.place.endswith(f": require.{R5}.min")
    assert path.read_text().splitlines()[line - 1].strip().startswith('"min": 0.8')


def test_a_failed_gate_ends_with_exit_code_6_after_everything_is_written(tmp_path, capsys):
    out, grid = tmp_path / "out", f"{GRID}require:\n  {R5}: {{min: 0.8}}\n"
    sweep = FinishedSweep(out, {"whole": 0, "worse": 0.5}, speeds={"whole": 1, "worse": 2}, grid=grid)
    command = ["sweep", "--out", str(out), "--report-only", "--gate", "--export", "clip_benchmark"]
    assert main(command) == 6
    printed = capsys.readouterr()
    assert "gates: 0 OK, 1 FAIL, 0 DRIFT" in printed.out
    assert "FAIL for 'worse' on small" in printed.err.splitlines()[-1]
    assert json.loads(sweep.folder.results.read_text())["gates"]["rows"][0]["status"] == "FAIL"
    assert "FAIL" in (out / "report.md").read_text()
    assert len(list((out / "exports" / "clip_benchmark").iterdir())) == 2
    (out / "grid.yaml").write_text(grid.replace("0.8", "0.1"))
    assert main([*command[:1], str(out / "grid.yaml"), *command[1:]]) == 0
    assert "gates: 1 OK, 0 FAIL, 0 DRIFT" in capsys.readouterr().out


def test_bounds_that_are_missing_are_refused(gates):
    with pytest.raises(
        ConfigError, match=r"gates.yaml, line \d+: require: it is missing, so there is nothing to check"
    ):
        gates("  {}\n")


def test_an_earlier_sweep_is_compared_query_by_query(gates, sweeps):
    _, _, old = sweeps
    lines = f"  {R5}: {{max_loss: 0.08}}\n  speedup: {{max_loss: 0.05}}\n"
    found, _ = gates(lines, baseline=old)
    by_metric = {(row.condition, row.metric): row for row in found.rows}
    # the unpruned model is compared, too: it may have changed
    assert by_metric["whole", R5].status == "OK"
    assert by_metric["whole", R5].estimate.value == 0
    assert by_metric["fast", R5].status == "OK"
    assert by_metric["worse", R5].status == "FAIL"
    assert by_metric["slow", "speedup"].status == "FAIL"
    assert by_metric["slow", "speedup"].estimate.value == pytest.approx(1 - 1.2 / 1.5, abs=0.02)
    assert by_metric["fast", "speedup"].status == "OK"
    assert by_metric["worse", R5].bound == f"a loss of at most 8.0 points against {old}"
    assert found.notes == [
        f"{old} lacks 1 condition of this sweep, so not compared: 'rival'",
        f"this sweep lacks 1 condition of {old}, so not compared: 'gone'",
        f"changed since {old}: torch 1 -> 2",
        "speedup: max_loss is not checked on 1 condition without it: 'worse'",
    ]
    with pytest.raises(GateFailed, match="FAIL for 'worse' on small"):
        refuse_failed(found)


def test_a_sweep_has_lost_nothing_against_itself(gates, sweeps):
    new, _, _ = sweeps
    found, _ = gates(f"  {R5}: {{max_loss: 0.08}}\n  speedup: {{max_loss: 0.1}}\n", baseline=new.folder.root)
    assert set(statuses(found).values()) == {"OK"}
    assert found.notes == ["speedup: max_loss is not checked on 1 condition without it: 'worse'"]


def test_every_metric_that_a_grid_may_name_can_be_compared(sweeps):
    new, results, old = sweeps
    known = metrics_of(new.grid.keys)
    changes = compare(results, new.folder, old, known)
    measured = results.of(key_of("fast")).on["small"].metrics
    assert changes.differences[key_of("fast"), "small"].keys() == measured.keys()
    assert measured.keys() <= set(known)


def test_what_the_earlier_sweep_did_not_measure_is_said(sweeps, tmp_path):
    new, results, _ = sweeps
    old = FinishedSweep(tmp_path / "old", {"whole": 0, "fast": 0.002}, environment={"torch": "2"})
    old.folder.ranks(key_of("fast"), "small").unlink()
    changes = compare(results, new.folder, old.folder.root, [R5])
    assert changes.differences.keys() == {(key_of("whole"), "small")}
    wanted = f"{old.folder.root} has not measured 1 condition of this sweep on 'small', so not compared: 'fast'"
    assert wanted in changes.notes


def test_a_sweep_is_not_its_own_baseline(tmp_path, capsys):
    assert main(["sweep", "--out", str(tmp_path), "--report-only", "--baseline", f"{tmp_path}/../{tmp_path.name}"]) == 2
    assert "--baseline is --out" in capsys.readouterr().err


def test_metrics_with_another_epsilon_are_not_compared(sweeps, tmp_path):
    _, results, old = sweeps
    new = FinishedSweep(tmp_path / "new", {"whole": 0}, grid=f"{GRID}epsilon: 0.5\n")
    results = dataclasses.replace(results, record=new.record, conditions=results.conditions[:1])
    metrics = [f"{R5}(epsilon)", R5]
    changes = compare(results, new.folder, old, metrics)
    assert changes.differences[key_of("whole"), "small"].keys() == {R5}
    assert "the two have different `epsilon`, so metrics with (epsilon) are not compared" in changes.notes


def test_a_baseline_of_another_split_or_without_a_common_name_is_refused(sweeps, gates, tmp_path):
    new, results, _ = sweeps
    other = FinishedSweep(tmp_path / "other", {"whole": 0}, data=photographs(NUM_IMAGES + 1, 5))
    with pytest.raises(ConfigError, match=r"other: its data set 'small' is another split: sha256 \w{12}, here \w{12}"):
        gates(f"  {R5}: {{max_loss: 0.01}}\n", baseline=tmp_path / "other")
    renamed = FinishedSweep(tmp_path / "renamed", {"x": 0}, data=photographs(NUM_IMAGES + 1, 5, name="big"))
    assert renamed.record.data[0].name == "big"
    with pytest.raises(ConfigError, match=r"none of the data sets of this sweep \('small'\), only 'big'"):
        open_earlier(tmp_path / "renamed", new.record.data)
    FinishedSweep(tmp_path / "x", {"x": 0})
    with pytest.raises(ConfigError, match="has no condition of this sweep, only 'x'"):
        compare(results, new.folder, tmp_path / "x", [R5])
    assert other.record.data[0].sha256 != new.record.data[0].sha256
    changed = [new.record.data[0].model_copy(update={"images_sha256": "f" * 64})]
    with pytest.raises(ConfigError, match="its data set 'small' has the same names, but other images"):
        open_earlier(new.folder.root, changed)


def test_a_baseline_that_is_no_sweep_or_of_another_schema_is_refused(sweeps, gates, tmp_path):
    lines = f"  {R5}: {{max_loss: 0.01}}\n"
    with pytest.raises(StoreError, match="holds no sweep"):
        gates(lines, baseline=tmp_path / "nothing")
    old = FinishedSweep(tmp_path / "old", {"whole": 0})
    record = json.loads(old.folder.record.read_text())
    old.folder.record.write_text(json.dumps(record | {"schema_version": 99}))
    with pytest.raises(StoreError, match="has schema version 99"):
        gates(lines, baseline=tmp_path / "old")


def test_a_metric_that_was_not_measured_is_refused_with_its_line(gates):
    with pytest.raises(ConfigError, match=r"gates.yaml, line 6: require\.acc1: no data set of this sweep has it"):
        gates(f"  {R5}: {{min: 0.1}}\n  acc1: {{min: 0.5}}\n")


def test_a_loss_of_speed_needs_a_baseline(gates):
    with pytest.raises(ConfigError, match=r"line 5: require\.speedup\.max_loss: .*add --baseline"):
        gates("  speedup: {max_loss: 0.1}\n")
