"""`clipsieve bench policies`: a grid becomes points, and every point is measured."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.model.pruning.policy import named_policy
from query.bench.grid import read_grid
from query.bench.policies import at_equal_speed
from query.cli.main import main

GRIDS = Path(__file__).resolve().parents[2] / "configs" / "bench" / "grids"
GRID = """
- name: named
  policies: [reference, {name: mine, score: cls_attn, schedule: {kind: bypass, keep: 0.5}}]
  options: {reduce: drop}
- name: sharper
  policies: [balanced]
  gmac_ratios: [1.3, 1.6]
- name: smaller input
  image_sizes: [24]
- name: one cut
  scores: [l2, random]
  depths: [0.0, 0.25]
  keeps: [0.5]
  options: {reduce: merge, size_weight: 0.9}
"""


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


def test_points_of_a_grid(grid):
    points = read_grid(grid)
    assert [(point.series, point.name) for point in points] == [
        ("named", "reference"),
        ("named", "mine"),
        ("sharper", "balanced(1.3x)"),
        ("sharper", "balanced(1.6x)"),
        ("smaller input", "24 px"),
        ("one cut", "l2 at 0, keep 0.5"),
        ("one cut", "l2 at 0.25, keep 0.5"),
        ("one cut", "random at 0, keep 0.5"),
        ("one cut", "random at 0.25, keep 0.5"),
    ]
    assert points[1].policy.reduce == "drop"
    assert points[3].policy.gmac_ratio == 1.6
    assert (points[4].policy.name, points[4].image_size) == ("lossless", 24)
    assert points[-1].policy.size_weight == 0.9


def test_every_point_is_measured(grid, tmp_path, tiny_model, photos, capsys):
    captions = tmp_path / "captions.tsv"
    keys = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    captions.write_text("".join(f"{key}\tphoto {number}\n" for number, key in enumerate(keys)))
    argv = ["bench", "policies", str(grid), "--images", str(photos), "--captions", str(captions), "--model", tiny_model]
    out = ["--json-file", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png")]
    assert main([*argv, *out, "--rounds", "1", "--bench-images", "4", "--num-images", "9", "--precision", "fp32"]) == 0
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["num_images"] == results["num_captions"] == 9
    assert [point["name"] for point in results["points"]][:2] == ["none", "reference"]
    assert len(results["points"]) == 10
    first = results["points"][0]
    assert (first["measured"], first["theoretical"], first["policy"]) == (1.0, 1.0, None)
    for point in results["points"][1:]:
        assert point["theoretical"] > 1
        assert point["measured"] > 0
        assert 0 <= point["metrics"]["image_retrieval_recall@1"] <= point["metrics"]["image_retrieval_recall@10"] <= 1
    assert results["points"][3]["theoretical"] >= 1.3
    assert "one cut" in capsys.readouterr().out
    with Image.open(tmp_path / "r.png") as plot:
        assert plot.width > 500


def test_series_and_policies_that_share_names_are_measured_apart(tmp_path, tiny_model, photos, capsys):
    grid, captions = tmp_path / "grid.yaml", tmp_path / "captions.tsv"
    grid.write_text(
        "- {name: a, policies: [{name: 'b: c', schedule: {kind: constant, removed: 0.1}}]}\n"
        "- {name: 'a: b', policies: [{name: c, schedule: {kind: constant, removed: 0.2}}]}\n"
    )
    captions.write_text("photo-01.png\ta photo\nphoto-02.jpg\tanother\n")
    argv = ["bench", "policies", str(grid), "--images", str(photos), "--captions", str(captions)]
    assert main([*argv, "--model", tiny_model, "--rounds", "1", "--precision", "fp32", "--json"]) == 0
    none, first, second = json.loads(capsys.readouterr().out)["points"]
    assert none["gmacs"] > first["gmacs"] > second["gmacs"]


def test_equal_speed_is_interpolated_between_the_unpruned_tower_and_the_points():
    def point(series, measured, recall):
        metrics = {f"image_retrieval_recall@{k}": recall for k in (1, 5, 10)}
        return {"series": series, "measured": measured, "metrics": metrics}

    points = [point("none", 1.0, 0.9), point("a", 2.0, 0.5), point("b", 1.6, 0.6), point("b", 1.4, 0.8)]
    table = at_equal_speed(points)
    assert table["a"] == {"1.5x": pytest.approx(2.1), "2x": pytest.approx(1.5)}
    assert table["b"] == {"1.5x": pytest.approx(2.1), "2x": None}


def test_a_named_policy_keeps_its_own_cost_and_none_is_unpruned(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("- {name: named, policies: [none, lean]}")
    unpruned, lean = read_grid(path)
    assert (unpruned.name, unpruned.policy) == ("none", None)
    assert lean.policy == named_policy("lean")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- name: a\n  scores: [magic]\n  depths: [0.1]\n  keeps: [0.5]\n", "grid .*: score = 'magic'"),
        ("- name: a\n  magic: 1\n", "grid .*: magic = 1: extra inputs"),
        ("- name: a\n  policies: [magic]\n", "policy = 'magic': expected one of none, "),
        ("- name: a\n  image_sizes: [24, 24]\n", "'24 px' .* twice in series 'a'"),
        ("[]", "grid .*: no points"),
        ("", "grid .* must be a list of series, .*found nothing"),
        ("name: a\npolicies: [fast]\n", "must be a list of series, .*found `key: value` lines"),
        ("- fast\n", "must be a list of series, .*found a list of other values"),
        ("- policies: [fast]\n", "grid .*: name is missing; add it to each series"),
        ("- {name: a, policies: [{score: l2}]}\n", "grid .*: name is missing; add it to each series and each policy"),
        ("- {name: a, policies: [{name: none, score: l2}]}\n", "series 'a': name = 'none' is the name of a baseline"),
        ("- {name: none, policies: [fast]}\n", "the series 'none' is the unpruned tower"),
        ("- {name: a, name: b, policies: [fast]}\n", "key 'name' is given twice"),
        ("- {name: a, scores: [l2], depths: [0], keeps: [0.5], options: {score: l2}}\n", "multiple values .*'score'"),
        ("7", "must be a list of series, .*found a single value"),
    ],
)
def test_wrong_grids(tmp_path, text, message):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_grid(path)
    with pytest.raises(ConfigError, match="cannot read grid"):
        read_grid(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.name)
def test_grids_that_ship(path):
    assert len(read_grid(path)) >= 5
