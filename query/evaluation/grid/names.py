"""Keys that refer to conditions and to metrics by name."""

import difflib
from collections.abc import Iterable

from pipeline.yaml_file import Loc
from query.evaluation.grid.condition import Condition
from query.evaluation.grid.keys import MAX_K, GridKeys
from query.evaluation.grid.read import Grid

_TASKS = ("image_retrieval", "text_retrieval")
_VARIANTS = ("", "(expected)", "(epsilon)", "(duplicates)")
SPEEDS = ("speedup", "images_per_second")
"""What gates can ask for besides metrics."""


def metrics_of(keys: GridKeys) -> list[str]:
    """Every metric that a sweep with these keys can have."""
    recall = [f"{task}_recall@{k}{variant}" for task in _TASKS for k in keys.ks for variant in _VARIANTS]
    other = [f"{task}_{name}" for task in _TASKS for name in ("median_rank", "mrr", "ndcg@10", "recall@10_p5")]
    return [*recall, *other, "acc1", "acc5"]


def check_names(grid: Grid, conditions: list[Condition]) -> None:
    """Check that `decompose`, `mixed`, `metric` and `require` name what there is.

    Raises:
        ConfigError: If they do not; names the line, and what was probably meant.
    """
    keys = grid.keys
    by_name = {condition.name: condition for condition in conditions}
    for place, pair in enumerate(keys.mixed):
        for side, name in enumerate(pair):
            _check_known(grid, ("mixed", place, side), name, by_name, "a condition")
        if pair[0] == pair[1]:
            raise grid.error(("mixed", place), f"both are {pair[0]!r}; name two conditions")
    for place, name in enumerate(keys.decompose.conditions if keys.decompose else ()):
        loc = ("decompose", "conditions", place)
        _check_known(grid, loc, name, by_name, "a condition")
        _check_decomposed(grid, by_name[name], conditions, loc)
    metrics = metrics_of(keys)
    _check_known(grid, ("metric",), keys.metric, metrics, "a metric")
    if keys.metric.endswith(("_median_rank", "_p5")):
        raise grid.error(("metric",), "fronts need a mean over the queries; name another metric", keys.metric)
    for name in keys.require:
        _check_known(grid, ("require", name), name, [*metrics, *SPEEDS], "a metric", is_key=True)


def adapted_twin(conditions: Iterable[Condition], bare: Condition, adapter: str) -> Condition | None:
    """The condition that differs from a bare one by an adapter only; None if there is none.

    Args:
        conditions: All conditions.
        bare: The condition without an adapter.
        adapter: The adapter as the grid spells it, as in `Condition.adapter`.
    """
    for other in conditions:
        source = other.source.model_copy(update={"adapter": None})
        if other.adapter == adapter and (source, *other.settings[1:]) == bare.settings:
            return other
    return None


def _check_decomposed(grid: Grid, condition: Condition, conditions: list[Condition], loc: Loc) -> None:
    if condition.policy is None or condition.source.adapter:
        raise grid.error(loc, "expected a pruned condition without an adapter", condition.name)
    adapter = grid.as_spelled(grid.keys.decompose.adapter)
    if adapter and not adapted_twin(conditions, condition, adapter):
        raise grid.error(
            ("decompose", "adapter"),
            f"{condition.name!r} is not measured with this adapter; add it to the `adapters` of its series",
            adapter,
        )


def _check_known(grid: Grid, loc: Loc, name: str, known: Iterable[str], what: str, *, is_key: bool = False) -> None:
    known = list(known)
    if name in known:
        return
    k = name.partition("_recall@")[2].partition("(")[0]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if k.isdecimal() and int(k) > MAX_K:
        problem = f"the best {MAX_K} hits of each query are kept; give a k of at most {MAX_K}"
    elif k.isdecimal() and int(k) not in grid.keys.ks and any(name.startswith(f"{task}_recall@") for task in _TASKS):
        problem = f"recall@{k} is not measured; add {k} to `ks`"
    else:
        problem = (
            f"expected {what} of this sweep; did you mean {' or '.join(near)}?"
            if near
            else (f"expected {what} of this sweep: {', '.join(map(repr, known))}")
        )
    raise grid.error(loc, problem, None if is_key else name)
