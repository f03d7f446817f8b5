"""Which conditions fit a model, and which turn out to be the same encoder."""

import pytest
import torch

from pipeline.errors import ConfigError, InputError
from pipeline.model.precision import Candidate
from query.evaluation.grid.expand import expand
from query.evaluation.grid.read import read_grid
from query.evaluation.running.towers import Models, load_towers


def loaded(sweep):
    grid = read_grid(sweep.grid)
    return load_towers(expand(grid), grid, Models(torch.device("cpu"), 4), lambda name, tick: None)


def test_rivals_that_do_not_fit_a_model_are_left_out_with_the_reason(sweep):
    sweep.grid.write_text(sweep.grid.read_text().replace("keeps: [0.5]", "keeps: [0.5, 0.01]"))
    towers, warnings = loaded(sweep)
    assert len(warnings) == 3
    assert warnings[0].startswith("'random, keep 0.01' does not fit this model and is left out: policy ")
    assert not [tower for tower in towers if "0.01" in tower.condition.name]
    assert towers[0].condition.role == "baseline"


def test_a_condition_that_does_not_fit_a_model_is_an_error_with_its_line(sweep):
    policy = "{name: mine, reduce: drop, schedule: {kind: stages, cuts: [{depth: 0.5, keep: 0.01}]}}"
    sweep.write_grid(policies=f"[{policy}]")
    with pytest.raises(ConfigError, match=r"grid\.yaml, line \d+: condition 'mine': policy 'mine' keeps 0 of 16 patch"):
        loaded(sweep)


def test_a_tower_that_cannot_be_pruned_has_only_down_scaled_input_as_rival(sweep, resnet_model):
    sweep.grid.write_text(sweep.grid.read_text().replace(sweep.model, resnet_model))
    with pytest.raises(InputError, match=r"grid\.yaml, line \d+: condition 'lossless': .*cannot be pruned"):
        loaded(sweep)
    sweep.model = resnet_model
    sweep.write_grid(policies="[none]")
    towers, warnings = loaded(sweep)
    assert all(tower.condition.policy is None for tower in towers)
    assert "cannot be pruned, so 4 rivals are left out" in warnings[0]


def test_a_rival_that_is_the_encoder_of_a_condition_is_measured_once(sweep):
    # auto stands for fp32 here, so their settings differ and their encoders do not
    policy = "{name: mine, reduce: bipartite, size_weight: 1.0, schedule: {kind: constant, removed: 0.0664}}"
    sweep.write_grid(policies=f"[{policy}]")
    text = sweep.grid.read_text().replace("precision: fp32", "precision: auto")
    sweep.grid.write_text(text.replace("adapters: [none]", "adapters: [none], precisions: [fp32]"))
    grid = read_grid(sweep.grid)
    models = Models(torch.device("cpu"), 4, auto=Candidate(precision="fp32"))
    towers, warnings = load_towers(expand(grid), grid, models, lambda name, tick: None)
    pruned = [tower.condition for tower in towers if tower.condition.policy]
    assert [found.name for found in pruned if found.policy.reduce == "bipartite"] == ["mine, fp32"]
    assert any("is not measured, because it embeds exactly as 'mine, fp32' does" in text for text in warnings)
