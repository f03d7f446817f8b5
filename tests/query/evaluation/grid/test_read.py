"""Reading a grid: every error names the file, the line and the key."""

import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from query.evaluation.grid.earlier import EarlierPlan
from query.evaluation.grid.keys import GridKeys
from query.evaluation.grid.read import read_grid

SCENES = "data: [{name: scenes, scenes: 20}]\n"


def read(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return read_grid(path)


def refuse(tmp_path, text, *parts):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_smallest_grid_has_a_default_for_every_other_key(tmp_path):
    keys = read(tmp_path, SCENES).keys
    assert (keys.model.model, keys.data[0].scenes, keys.series, keys.rounds) == ("scenes", 20, (), 7)
    assert keys.rivals.keeps == (0.7, 0.5)


def test_lines_of_keys(tmp_path):
    grid = read(
        tmp_path,
        "data:\n  - name: scenes\n    scenes: 20\nseries:\n  - name: a\n    policies:\n      - fast\n      - lean\n",
    )
    assert grid.line_of(("data", 0, "scenes")) == 3
    assert grid.line_of(("series", 0, "policies", 1)) == 8
    assert grid.line_of(("series", 0, "policies")) == 6
    assert grid.line_of(("series", 0, "adapters")) == 5, "a key that is not given: the part it would be in"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"{SCENES}round: 3\n", ["grid.yaml, line 2: round: unknown key; did you mean rounds?", "known: model, data"]),
        (f"{SCENES}rounds: 3\nks: [1]\nrounds: 4\n", ["key 'rounds' is given twice; keep one of lines 2 and 4"]),
        (f"{SCENES}rounds: many\n", ["line 2: rounds = 'many': input should be a valid integer"]),
        (f"{SCENES}ks:\n  - 5\n  - 101\n", ["line 4: ks.1 = 101: input should be less than or equal to 100"]),
        (f"{SCENES}series:\n- name: a\n  polices: [fast]\n", ["line 4: series.0.polices: unknown key", "policies?"]),
        (f"{SCENES}series:\n- name: a\n  scores: [magic]\n", ["line 4: series.0.scores.0 = 'magic'", "'l2', "]),
        (f"{SCENES}series:\n- policies: [fast]\n", ["line 3: series.0.name: it is missing; add it here: Name of"]),
        (
            f"{SCENES}series:\n- name: a\n  policies: [fast, 7]\n",
            ["line 4: series.0.policies.1 = 7: expected the"],
        ),
        (f"{SCENES}rivals: {{keeps: []}}\n", ["line 2: rivals.keeps", "at least 1 item"]),
        (f"{SCENES}require:\n  speedup: {{least: 2}}\n", ["line 3: require.speedup.least: unknown key", "max_loss"]),
        (f"{SCENES}require:\n  speedup: {{}}\n", ["line 3: require.speedup: there is no bound"]),
        (f"{SCENES}require:\n  speedup: {{min: 2, max: 1}}\n", ["line 3", "min = 2 is above max = 1"]),
        ("data:\n  - name: a\n", ["line 2: data.0: expected exactly one of images, ", "found none of them"]),
        ("data:\n  - {name: a, scenes: 20, classes: x}\n", ["found classes and scenes"]),
        ("data:\n  - {name: a, captions: x.tsv}\n", ["line 2", "found none of them"]),
        ("data:\n  - {name: a/b, scenes: 20}\n", ["line 2: data.0.name = 'a/b': expected at most 100 letters"]),
        ("data:\n  - {name: Timings, scenes: 20}\n", ["line 2: data.0.name = 'Timings': a sweep has a folder of this"]),
        ("data:\n  - {name: mixed, scenes: 20}\n", ["line 2: data.0.name = 'mixed': a sweep has a folder of this"]),
        (
            "data:\n  - {name: a, scenes: 20}\n  - {name: A, scenes: 30}\n",
            ["line 3: data.1.name", "line 2 has a data"],
        ),
        ("data:\n- {name: a, scenes: 20}\n- {name: b, classes: 's3://x'}\n", ["line 3: data.1.classes", "found a URL"]),
        (f"{SCENES}rounds: no\nks: x\nseed: 1\n", ["line 2: rounds", "and 2 more, on lines 3, 4"]),
        ("series: []\n", ["line 1: data: it is missing; add it here: The data sets."]),
        ("7\n", ["must hold `key: value` lines, found a single value"]),
        ("", ["must hold `key: value` lines, found nothing"]),
        ("data: [\n", ["is not valid YAML", "line 2"]),
        ("a: &a [*a]\n", ["contains itself"]),
    ],
)
def test_errors_name_the_line_and_the_key(tmp_path, text, parts):
    refuse(tmp_path, text, *parts)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read grid .*none\.yaml"):
        read_grid(tmp_path / "none.yaml")


def test_variables_are_filled_in_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_PLACE", str(tmp_path))
    monkeypatch.setenv("SOME_ROUNDS", "3")
    text = (
        "model: {model: 'local-dir:$SOME_PLACE/m'}\ndata: [{name: a, classes: '${SOME_PLACE}'}]\nrounds: $SOME_ROUNDS\n"
    )
    grid = read(tmp_path, text)
    assert (grid.keys.rounds, grid.keys.data[0].classes) == (3, tmp_path)
    assert grid.keys.model.model == f"local-dir:{tmp_path}/m"
    plain = grid.as_json()
    assert plain["model"]["model"] == "local-dir:$SOME_PLACE/m"
    assert plain["data"][0]["classes"] == "${SOME_PLACE}"


def test_a_variable_that_is_not_set(tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_PLACE", raising=False)
    refuse(
        tmp_path, f"{SCENES}model:\n  model: local-dir:$SOME_PLACE/m\n", "line 3: model.model: $SOME_PLACE is not set"
    )
    monkeypatch.setenv("SOME_PLACE", "")
    refuse(tmp_path, f"{SCENES}metric: ${{SOME_PLACE}}\n", "line 2: metric: $SOME_PLACE is not set")


@pytest.mark.parametrize("name", ["my photos", "COCO (val2017)", "año-1", "x"])
def test_names_of_data_sets(tmp_path, name):
    assert read(tmp_path, f"data: [{{name: {name}, scenes: 20}}]\n").keys.data[0].name == name


@pytest.mark.parametrize("name", ["a/b", "../a", ".a", "a ", "a+distractors", "a:b"])
def test_names_that_could_not_name_a_folder(tmp_path, name):
    refuse(
        tmp_path,
        f"data: [{{name: '{name}', scenes: 20}}]\n",
        f"line 1: data.0.name = {name!r}: expected at most 100 letters",
    )


def test_two_dollar_signs_are_one(tmp_path):
    text = f"{SCENES}series:\n- {{name: costs $$5, policies: [fast]}}\n"
    assert read(tmp_path, text).keys.series[0].name == "costs $5"


def test_a_plan_of_bench_policies_is_refused_with_the_new_spelling(tmp_path, monkeypatch):
    (tmp_path / "c.tsv").touch()
    plan = "# Which score?\n- name: a\n  policies: [fast]\n  # odd\n- name: b\n  image_sizes: [64]\n"
    with pytest.raises(EarlierPlan, match="plan of `clipsieve bench policies`") as caught:
        read(tmp_path, plan)
    assert "\n" not in str(caught.value)
    text = caught.value.lines
    assert text.startswith("# Which score?\n")
    text = text.replace("IMAGES", str(tmp_path)).replace("CAPTIONS", str(tmp_path / "c.tsv"))
    grid = read(tmp_path, text)
    assert [series.name for series in grid.keys.series] == ["a", "b"]
    assert grid.keys.series[1].image_sizes == (64,)
    assert grid.keys.data[0].images == Path(tmp_path)


def test_a_grid_survives_as_json(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_PLACE", str(tmp_path))
    text = "data: [{name: a, classes: $SOME_PLACE}]\nseries: [{name: b, policies: [fast, {name: c, score: l2}]}]\n"
    grid = read(tmp_path, text)
    again = GridKeys.model_validate(json.loads(json.dumps(grid.as_json())))
    assert again.data[0].classes == Path("$SOME_PLACE")
    assert (again.series, again.rivals) == (grid.keys.series, grid.keys.rivals)


def test_a_wrong_data_set_is_one_error(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "data:\n  - {name: a/b, scenes: 20}\n")
    assert "more, on line" not in str(caught.value)
