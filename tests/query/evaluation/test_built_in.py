"""The grid of the built-in model, from a command to a report whose gates hold."""

import json
import re
from pathlib import Path

import pytest

from query.cli.main import main

GRID = Path(__file__).resolve().parents[3] / "configs" / "bench" / "grids" / "built-in.yaml"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of the sweep, with its gates checked."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    assert main(["sweep", str(GRID), "--out", str(out), "--gate"]) == 0
    return out


@pytest.fixture(scope="module")
def results(sweep):
    return json.loads((sweep / "results.json").read_bytes())


def test_every_condition_and_rival_is_measured(results):
    roles = [found["condition"]["role"] for found in results["conditions"]]
    assert (roles[0], roles.count("baseline"), roles.count("rival")) == ("baseline", 1, 10)
    for found in results["conditions"]:
        if found["condition"]["role"] != "index":
            on = found["on"]["scenes"]
            assert 0 < on["metrics"]["image_retrieval_recall@1"]["low"] < 1, found["condition"]["name"]
            assert found["speed"]["num_rounds"] == 5


def test_pruning_loses_and_the_adapter_recovers(results):
    recall = {
        found["condition"]["name"]: found["on"]["scenes"]["metrics"]["image_retrieval_recall@1"]["value"]
        for found in results["conditions"]
        if "scenes" in found["on"]
    }
    assert recall["none"] > recall["fast"]
    assert recall["fast+adapter"] > recall["fast"] > recall["random, keep 0.5"]


def test_the_report_needs_nothing_from_elsewhere(sweep):
    page = (sweep / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "fast+adapter" in page
    assert "fast+adapter" in (sweep / "report.md").read_text()


def test_the_second_pass_gives_the_same_results(sweep, results):
    assert main(["sweep", "--out", str(sweep), "--report-only"]) == 0
    again = json.loads((sweep / "results.json").read_bytes())
    assert again == {**results, "gates": None}, "gates are checked where that is asked for"
    assert "FAIL" not in {row["status"] for row in results["gates"]["rows"]}
