"""Pruning policies as data."""

import pytest
from pydantic import ValidationError

from pipeline.policy import PruningPolicy, resolve_policy


@pytest.mark.parametrize(("depth", "num_blocks", "block"), [(0.25, 12, 3), (0.25, 24, 6), (0.0, 12, 0), (0.99, 4, 3)])
def test_cut_block_is_a_fraction_of_the_depth(depth, num_blocks, block):
    assert PruningPolicy(name="p", depth=depth).cut_block(num_blocks) == block


@pytest.mark.parametrize(
    ("keep_ratio", "num_patches", "kept"), [(0.7, 196, 137), (0.7, 16, 11), (1.0, 196, 196), (0.05, 16, 0)]
)
def test_kept_tokens_are_rounded_down(keep_ratio, num_patches, kept):
    assert PruningPolicy(name="p", keep_ratio=keep_ratio).tokens_kept(num_patches) == kept


def test_names():
    assert resolve_policy("none", None) is None
    assert resolve_policy("reference", None) == PruningPolicy(name="reference", depth=0.25, keep_ratio=0.7)
    assert resolve_policy("reference", 0.5).keep_ratio == 0.5
    with pytest.raises(ValueError, match="unknown policy 'magic'; expected 'none' or 'reference'"):
        resolve_policy("magic", None)
    with pytest.raises(ValueError, match="'none' prunes nothing"):
        resolve_policy("none", 0.5)


@pytest.mark.parametrize("wrong", [{"keep_ratio": 0}, {"keep_ratio": 1.01}, {"depth": 1}, {"depth": -0.1}, {"deep": 1}])
def test_out_of_range(wrong):
    with pytest.raises(ValidationError):
        PruningPolicy(name="p", **wrong)
