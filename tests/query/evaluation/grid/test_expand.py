"""A grid becomes conditions."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.model.pruning.policy import named_policy
from query.evaluation.grid.expand import expand, without_pruned_rivals, without_repeats
from query.evaluation.grid.names import adapted_twin
from query.evaluation.grid.read import read_grid

GRIDS = Path(__file__).resolve().parents[4] / "configs" / "bench" / "grids"
SCENES = "data: [{name: scenes, scenes: 20}]\nprecision: fp32\n"
RIVALS = [
    "80 px",
    "72 px",
    "random, keep 0.7",
    "grid, keep 0.7",
    "reference, keep 0.7",
    "random, keep 0.5",
    "grid, keep 0.5",
    "reference, keep 0.5",
    "bipartite, 4.1 % a block",
    "bipartite, 6.64 % a block",
]


@pytest.fixture
def read(tmp_path):
    def read(text, start=SCENES):
        path = tmp_path / "grid.yaml"
        path.write_text(start + text)
        return read_grid(path)

    return read


def names(conditions, role="condition"):
    return [condition.name for condition in conditions if condition.role == role]


def test_a_grid_without_series_has_the_baseline_and_all_rivals(read):
    baseline, *others = expand(read(""))
    assert (baseline.name, baseline.role, baseline.policy, baseline.precision) == ("none", "baseline", None, "fp32")
    assert [condition.name for condition in others] == RIVALS
    assert {condition.role for condition in others} == {"rival"}
    assert (others[0].source.image_size, others[0].policy.name) == (80, "lossless")
    assert [(cut.depth, cut.keep) for cut in others[2].policy.schedule.cuts] == [(0.25, 0.7)]


def test_every_combination_of_a_series(read):
    text = """
series:
- {name: ours, policies: [none, balanced], adapters: [none, scenes]}
- {name: sharper, policies: [balanced], gmac_ratios: [1.7, 2]}
- {name: cuts, scores: [l2, random], depths: [0.0], keeps: [0.5, 0.3], options: {reduce: merge, size_weight: 0.9}}
- {name: smaller, image_sizes: [64]}
- {name: both, policies: [fast], image_sizes: [64, 80], precisions: [fp16], adapters: [scenes]}
- {name: other, model: {model: ViT-B-32, random_weights: true}, policies: [none, lean]}
"""
    grid = read(text)
    conditions = expand(grid)
    assert names(conditions) == [
        "none+adapter",
        "balanced",
        "balanced+adapter",
        "balanced(1.7x)",
        "balanced(2x)",
        "l2 at 0, keep 0.5",
        "l2 at 0, keep 0.3",
        "random at 0, keep 0.5",
        "random at 0, keep 0.3",
        "64 px",
        "fast+adapter, 64 px, fp16",
        "fast+adapter, 80 px, fp16",
    ]
    assert names(conditions, "rival")[:2] == ["ViT-B-32", "ViT-B-32, lean"], "another model is a rival"
    by_name = {condition.name: condition for condition in conditions}
    assert by_name["balanced(1.7x)"].policy.gmac_ratio == 1.7
    assert by_name["random at 0, keep 0.3"].policy.size_weight == 0.9
    assert by_name["64 px"].policy == named_policy("lossless")
    assert by_name["fast+adapter, 64 px, fp16"].precision == "fp16"
    assert by_name["ViT-B-32"].source.random_weights
    assert grid.line_of(by_name["64 px"].loc) == 8
    assert adapted_twin(conditions, by_name["balanced"], "scenes") is by_name["balanced+adapter"]
    assert adapted_twin(conditions, by_name["balanced(2x)"], "scenes") is None


def test_keys_of_conditions_depend_on_settings_alone(read, monkeypatch, tmp_path):
    policies = "[balanced, {name: OTHER, score: l2_cls, reduce: drop}]"
    text = f"series:\n- {{name: NAME, policies: {policies}, adapters: [$PLACE]}}\n"
    monkeypatch.setenv("PLACE", str(tmp_path))
    first = expand(read(text))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("PLACE", str(tmp_path / "elsewhere"))
    second = expand(read(text.replace("NAME", "a").replace("OTHER", "b") + "seeds: [0, 1]\n"))
    assert [condition.key for condition in first[:3]] == [condition.key for condition in second[:3]]
    assert first[1].key.startswith("balanced-adapter-fp32-")
    assert first[1].adapter == "$PLACE"
    assert first[1].source.adapter == str(tmp_path)
    keys = [condition.key for condition in second]
    assert len(set(keys)) == len(keys) == 1 + 2 + len(RIVALS) + 2
    assert all(key.isascii() and "/" not in key and " " not in key for key in keys)


def test_keys_stay_the_same():
    # raw files of earlier sweeps are found by these
    from pipeline.model.spec import ModelSource
    from query.evaluation.grid.condition import Condition

    source = ModelSource(model="scenes")
    keys = {
        Condition(
            name="x", series="x", role="rival", source=source, spelled=source, policy=policy, precision="auto"
        ).key
        for policy in (None, named_policy("balanced"), named_policy("lean"))
    }
    assert keys == {"none-8b396f61", "balanced-ae7e7930", "lean-9d3908da"}


def test_a_condition_of_a_series_is_not_measured_again_as_a_rival(read):
    text = "series:\n- {name: a, policies: [reference]}\n- {name: b, scores: [grid], depths: [0.25], keeps: [0.5]}\n"
    found = expand(read(text))
    assert names(found) == ["reference", "grid at 0.25, keep 0.5"]
    assert names(found, "rival") == [name for name in RIVALS if name not in ("reference, keep 0.7", "grid, keep 0.5")]


def test_seeds_apply_to_random_scores_alone(read):
    own = "{name: mine, score: random, seed: 5, schedule: {kind: stages, cuts: [{depth: 0, keep: 0.5}]}}"
    cuts = "{name: a, scores: [random, l2], depths: [0.5], keeps: [0.5]}"
    found = expand(read(f"seeds: [0, 7]\nseries:\n- {cuts}\n- {{name: b, policies: [{own}]}}\n"))
    assert names(found) == [
        "random at 0.5, keep 0.5, seed 0",
        "random at 0.5, keep 0.5, seed 7",
        "l2 at 0.5, keep 0.5",
        "mine",
    ]
    assert [condition.policy.seed for condition in found[1:5]] == [0, 7, 0, 5]
    assert "random, keep 0.7, seed 7" in names(found, "rival")


def test_cuts_of_several_series_are_told_apart_by_their_options(read):
    cut = "scores: [l2], depths: [0], keeps: [0.5]"
    text = f"series:\n- {{name: a, {cut}}}\n- {{name: b, {cut}, options: {{reduce: merge, size_weight: 0.9}}}}\n"
    assert names(expand(read(text))) == ["l2 at 0, keep 0.5", "l2 at 0, keep 0.5, merge, size_weight 0.9"]


def test_two_adapters_have_their_names(read, tmp_path):
    (tmp_path / "captions").mkdir()
    found = expand(read(f"series:\n- {{name: a, policies: [fast], adapters: [scenes, {tmp_path}/captions]}}\n"))
    assert names(found) == ["fast+scenes", "fast+captions"]


def test_an_unprunable_tower_keeps_only_the_rivals_that_do_not_prune(read, resnet_model):
    text = f"model: {{model: '{resnet_model}'}}\nseries:\n- {{name: a, policies: [fast]}}\n"
    conditions, warnings = without_pruned_rivals(expand(read(text + "rivals: {image_sizes: [0.5]}\n")))
    assert [condition.name for condition in conditions] == ["none", "fast"]
    assert len(warnings) == 1
    assert "cannot be pruned, so 8 rivals are left out: random, keep 0.7" in warnings[0]


def test_input_of_a_rival_keeps_no_policy_where_nothing_can_be_pruned(read):
    conditions, _ = without_pruned_rivals(expand(read("")))
    assert [(condition.name, condition.policy) for condition in conditions] == [
        ("none", None),
        ("80 px", None),
        ("72 px", None),
    ]


def test_conditions_that_turn_out_to_be_one(read):
    grid = read(
        "series:\n- {name: a, policies: [balanced, fast]}\n- {name: b, policies: [none, fast], precisions: [bf16]}\n"
    )
    conditions = expand(grid)
    prints = {condition.key: condition.name for condition in conditions}
    by_name = {condition.name: condition.key for condition in conditions}
    same = {**prints, by_name["none, bf16"]: "none", by_name["fast, bf16"]: "fast", by_name["80 px"]: "balanced"}
    kept, warnings = without_repeats(grid, conditions, same)
    assert len(kept) == len(conditions) - 3
    assert "'fast, bf16' is not measured, because it embeds exactly as 'fast' does" in warnings
    assert without_repeats(grid, conditions, prints) == (conditions, [])
    with pytest.raises(
        ConfigError, match=r"line 4: .*encoder of 'fast' is the same as that of 'balanced', .*\(line 4\)"
    ):
        without_repeats(grid, conditions, {**prints, by_name["fast"]: "balanced"})
    grid = read("series:\n- {name: b, policies: [none], precisions: [bf16]}\nmixed: [[none, 'none, bf16']]\n")
    prints = {condition.key: condition.role for condition in expand(grid)}
    with pytest.raises(ConfigError, match=r"line 4: .*refer to 'none', or set `precision`"):
        without_repeats(grid, expand(grid), {**prints, expand(grid)[1].key: "baseline"})


A = "series:\n- name: a\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{A}  policies: [fast, magic]\n",
            r"line 5: series.0.policies.1 = 'magic': expected one of none, .*FILE.yaml",
        ),
        (f"{A}  policies: [balancd]\n", "did you mean balanced"),
        (f"{A}  policies: [nowhere.yaml]\n", "line 5: series.0.policies.0: cannot read policy nowhere.yaml"),
        (
            f"{A}  policies:\n  - name: b\n    score: magic\n",
            r"line 7: series.0.policies.0.score = 'magic': input should",
        ),
        (
            f"{A}  policies:\n  - name: b\n    schedule:\n      kind: stages\n      cuts: [{{depth: 2, keep: 0.5}}]\n",
            "line 9: series.0.policies.0.schedule.cuts.0.depth = 2: ",
        ),
        (
            f"{A}  policies: [{{score: l2}}]\n",
            "line 5: series.0.policies.0.name: it is missing; add it to the policy, or",
        ),
        (f"{A}  policies: [{{name: b, magic: 2}}]\n", "series.0.policies.0.magic = 2: unknown key; known: name, sched"),
        (f"{A}  policies: [{{name: b}}]\n  options:\n    reduce: crop\n", "line 7: series.0.options.reduce = 'crop': "),
        (f"{A}  policies: [{{name: none}}]\n", "line 5: series.0.policies.0.name: .*name of a baseline"),
        (f"{A}  policies: [{{name: b, seed: 1}}]\n", "seed = 1: score 'l2' draws nothing"),
        (f"{A}  policies: [lossless]\n  gmac_ratios: [2]\n", "line 5: .*'lossless' has no schedule to sharpen"),
        (f"{A}  gmac_ratios: [2]\n", "line 5: series.0.gmac_ratios: there are no `policies` to sharpen"),
        (f"{A}  scores: [l2]\n  keeps: [0.5]\n", "line 5: series.0.scores: .*go together; add depths"),
        (f"{A}  policies: [fast]\n  options: {{reduce: drop}}\n", "line 6: series.0.options: no policy .* spelled out"),
        (
            f"{A}  scores: [l2]\n  depths: [0]\n  keeps: [0.5]\n  options: {{score: grid}}\n",
            "line 8: series.0.options.score: policies with one cut have their own",
        ),
        (A, "line 4: series.0.name: the series compares nothing"),
        ("series:\n- {name: none, policies: [fast]}\n", "line 4: series.0.name = 'none': this is the name of the unpr"),
        ("series:\n- {name: grid dropping, policies: [fast]}\n", "name of rivals that every sweep measures"),
        (f"{A}  policies: [fast]\n- name: A\n  policies: [lean]\n", "line 6: series.1.name = 'A': line 4 has a series"),
        (
            f"{A}  policies:\n  - fast\n  - fast\n",
            r"line 7: series.0.policies.1: the encoder of 'fast' is the same as that of 'fast', .*of 'a' \(line 6\)",
        ),
        (
            f"{A}  policies:\n  - fast\n  - {{name: quick, score: l2_cls}}\n- name: b\n  policies: [{{name: Quick}}]\n",
            r"line 9: series.1.policies.0: 'Quick' is also the name of a condition of 'a' \(line 7\); rename one",
        ),
        (f"{A}  policies: [{{name: 'grid, keep 0.5'}}]\n", r"'grid, keep 0.5' is also the name of a condition of 'a'"),
        (
            f"{A}  adapters:\n  - none\n  - /nowhere\n",
            "line 7: series.0.adapters.1 = '/nowhere': expected the directory",
        ),
        (
            "mixed: [[none, fast]]\n",
            "line 3: mixed.0.1 = 'fast': expected a condition of this sweep: 'none', '80 px', ",
        ),
        (f"{A}  policies: [fast]\nmixed: [[fast, fats]]\n", "line 6: mixed.0.1 = 'fats': .*did you mean fast"),
        ("mixed: [[none, none]]\n", "line 3: mixed.0: both are 'none'"),
        ("decompose: {conditions: [none]}\n", "decompose.conditions.0 = 'none': expected a pruned condition without"),
        (
            f"{A}  policies: [fast]\ndecompose:\n  conditions: [fast]\n  adapter: scenes\n",
            "line 8: decompose.adapter = 'scenes': 'fast' is not measured with this adapter; add it to the `adapters`",
        ),
        ("metric: image_retrieval_median_rank\n", "line 3: metric = .*median_rank': fronts need a mean"),
        (
            "metric: image_retrieval_recall@10_p5\n",
            "line 3: metric = .*_p5': fronts need a mean",
        ),
        ("metric: image_retrieval_recal@5\n", "line 3: metric = .*did you mean image_retrieval_recall@5"),
        (
            "require:\n  speed: {min: 2}\n",
            "line 4: require.speed: expected a metric of this sweep; did you mean speedup",
        ),
        ("require: {image_retrieval_recall@20: {min: 0}}\n", "line 3: .*recall@20 is not measured; add 20 to `ks`"),
        (
            f"{A}  policies: [{{name: x, schedule: {{cuts: []}}}}]\n",
            "line 5: .*schedule: `kind` is missing or unknown; .*'geometric'",
        ),
        (f"{A}  policies: [{{name: x, schedule: 3}}]\n", "line 5: .*schedule = 3: expected `key: value` lines"),
        ("metric: text_retrieval_recall@500\n", "line 3: .*the best 100 hits of each query are kept; give a k of at"),
    ],
)
def test_errors_name_the_line_and_the_key(read, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        expand(read(text))
    assert "grid.yaml, line " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("classes: /nowhere", "line 2: data.0.classes = '/nowhere': there is nothing at this path"),
        ("scenes: 20, distractors: [., /nowhere]", "line 2: data.0.distractors.1 = '/nowhere': there is nothing"),
    ],
)
def test_a_path_that_leads_nowhere(read, data, message):
    grid = read(f"data:\n- {{name: a, {data}}}\n", "")
    with pytest.raises(ConfigError, match=message):
        expand(grid)


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.name)
def test_grids_that_ship(path, tmp_path, monkeypatch):
    for name in ("models/lit-vit-ti-16", "data/flickr8k-test", "data/flickr8k-train"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "captions.tsv").touch()
    monkeypatch.setenv("CLIPSIEVE_SHARED", str(tmp_path))
    monkeypatch.setenv("CLIPSIEVE_ADAPTER", str(tmp_path))
    conditions = expand(read_grid(path))
    assert len(conditions) >= {"flickr8k.yaml": 30, "int8.yaml": 16, "matrix.yaml": 100}.get(path.name, 20)
    policies = [condition.policy for condition in conditions if condition.policy]
    assert sum(policy.score == "random" for policy in policies) >= 2
    assert sum(policy.score == "grid" for policy in policies) >= 2
    assert sum(policy.reduce == "bipartite" for policy in policies) >= 2
    assert sum(condition.source.image_size is not None for condition in conditions) >= 2
