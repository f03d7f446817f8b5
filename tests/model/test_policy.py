"""Pruning policies as data: the number of tokens in each block, and invalid policies."""

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.model.load import with_policy
from pipeline.model.pruning.policy import PruningPolicy, choose_policy, named_policy, policy_names


def policy(**parts):
    return PruningPolicy(**{"name": "p", **parts})


def stages(*cuts):
    return {"kind": "stages", "cuts": [{"depth": depth, "keep": keep} for depth, keep in cuts]}


@pytest.mark.parametrize(
    ("schedule", "counts"),
    [
        (None, [20, 20, 20, 20]),
        (stages((0.25, 0.7)), [20, 14, 14, 14]),
        (stages((0.0, 0.75), (0.5, 0.3)), [15, 15, 6, 6]),
        ({"kind": "geometric", "ratio": 0.5, "floor": 0.2}, [10, 5, 4, 4]),
        ({"kind": "geometric", "ratio": 0.5, "floor": 0.05, "start": 0.5}, [20, 20, 10, 5]),
        ({"kind": "constant", "removed": 0.1}, [18, 16, 14, 12]),
        ({"kind": "constant", "removed": 0.1, "start": 0.5}, [20, 20, 18, 16]),
        ({"kind": "bypass", "keep": 0.3, "start": 0.25}, [20, 6, 6, 6]),
    ],
)
def test_patches_per_block(schedule, counts):
    reduce = "drop" if schedule and schedule["kind"] == "bypass" else "summary"
    assert policy(schedule=schedule, reduce=reduce).patches_per_block(20, 4) == counts


def test_ratios_tolerate_floating_point_errors():
    # 0.29 * 100 is 28.999... in floats
    assert policy(schedule=stages((0.0, 0.7))).patches_per_block(10, 1) == [7]
    assert policy(schedule=stages((0.0, 0.29))).patches_per_block(100, 1) == [29]


def test_power_sharpens():
    assert policy(schedule=stages((0.0, 0.5))).patches_per_block(16, 2, power=2.0) == [4, 4]


def test_keeping_no_token_is_refused():
    with pytest.raises(ConfigError, match="'p' keeps 0 of 16 patch tokens at block 1 of 4; expected at least 1"):
        policy(schedule=stages((0.25, 0.05))).patches_per_block(16, 4)


def test_pairs_leave_at_least_half():
    halves = policy(schedule=stages((0.25, 0.5), (0.5, 0.25)), reduce="bipartite")
    with pytest.raises(ConfigError, match="keeps 8 of 17 patch tokens at block 2: merging in pairs leaves at least 9"):
        halves.patches_per_block(34, 4)
    assert halves.patches_per_block(16, 4) == [16, 8, 4, 4]
    sixteen = policy(schedule={"kind": "constant", "removed": 0.082}, reduce="bipartite")
    assert sixteen.patches_per_block(196, 12)[-3:] == [36, 20, 10]
    assert sixteen.patches_per_block(196, 16)[-3:] == [3, 2, 1]


@pytest.mark.parametrize("name", [name for name in policy_names() if name != "none"])
def test_shipped_policies_fit_every_depth(name):
    assert named_policy(name).name == name
    for num_patches, num_blocks in ((49, 12), (144, 8), (196, 12), (576, 24), (2500, 12)):
        counts = named_policy(name).patches_per_block(num_patches, num_blocks)
        assert counts == sorted(counts, reverse=True)
    assert named_policy(name).class_token_last


def test_names():
    assert policy_names()[0] == "none"
    assert choose_policy("none", None) is None
    assert choose_policy(None, None).name == "balanced"
    assert choose_policy(None, 0.5) == choose_policy("reference", 0.5)
    assert choose_policy("reference", 0.5).patches_per_block(20, 4) == [20, 10, 10, 10]
    with pytest.raises(ConfigError, match=r"policy = 'magic': expected one of none, .*reference"):
        choose_policy("magic", None)
    with pytest.raises(ConfigError, match=r"keep_ratio = 0.5 .*drop policy 'none'"):
        choose_policy("none", 0.5)


def test_gmac_ratio():
    sharper = choose_policy("balanced", None, 2.5)
    assert (sharper.name, sharper.gmac_ratio) == ("balanced(2.5x)", 2.5)
    assert sharper.schedule == named_policy("balanced").schedule
    for name in ("none", "lossless"):
        with pytest.raises(ConfigError, match=f"gmac_ratio = 2: policy '{name}' has no schedule to sharpen"):
            choose_policy(name, None, 2.0)
    with pytest.raises(ConfigError, match=r"keep_ratio = 0.5 and gmac_ratio = 2 conflict"):
        choose_policy(None, 0.5, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": stages((0.25, 0.0))},
        {"schedule": stages((0.25, 1.01))},
        {"schedule": stages((1.0, 0.5))},
        {"schedule": stages((0.5, 0.5), (0.25, 0.4))},
        {"schedule": stages((0.25, 0.4), (0.5, 0.5))},
        {"schedule": {"kind": "magic"}},
        {"score": "magic"},
        {"size_weight": 1.5},
        {"size_weight": 0.5, "reduce": "drop"},
        {"schedule": {"kind": "bypass", "keep": 0.5}, "reduce": "summary"},
        {"gmac_ratio": 2.0},
        {"gmac_ratio": 1.0, "schedule": stages((0.25, 0.5))},
        {"deep": 1},
    ],
)
def test_out_of_range(wrong):
    with pytest.raises(ValidationError):
        policy(**wrong)


def test_a_seed_counts_for_the_fingerprint_unless_it_is_0(spec):
    drawn = policy(score="random")
    assert "seed" not in drawn.model_dump(), "as written before policies had seeds"
    spaces = [with_policy(spec, drawn.model_copy(update={"seed": seed})).image_space for seed in (0, 1, 2)]
    assert spaces[0] == with_policy(spec, drawn).image_space
    assert len(set(spaces)) == 3


def test_a_seed_needs_a_score_that_draws():
    with pytest.raises(ValidationError, match="seed = 1: score 'l2' draws nothing"):
        policy(seed=1)
