"""What a reader wants to know first: how much faster at which loss, and which setting to take."""

import json
import shlex
from dataclasses import dataclass

from pipeline.model.pruning.names import UNPRUNED
from pipeline.model.pruning.policy import policy_names
from query.evaluation.record import ConditionRecord
from query.evaluation.report import words
from query.evaluation.report.tables.table import NOTHING, Cell, Column, Table, cell, plain_table
from query.evaluation.results import ConditionResults, Estimate, FrontResults, Results

_USUAL_LOSS = 1.0
"""Points that most people are ready to lose, if the grid asks about several losses."""


def main_metric(results: Results) -> str:
    """The metric of plots and recommendations."""
    if results.fronts:
        return results.fronts[0].metric
    return results.record.grid.get("metric", "image_retrieval_recall@5")


def main_data(results: Results) -> str:
    """The data set of the answer and of the examples."""
    return results.fronts[0].data if results.fronts else results.record.data[0].name


def chosen(results: Results) -> ConditionResults | None:
    """The condition that the answer is about: what is recommended at the usual loss, or at the one next to it.

    Where nothing faster than the baseline is recommended, it is the first condition that is no rival.
    """
    baseline = results.record.baseline.key
    if results.fronts:
        by_loss = results.fronts[0].recommended_for_loss
        for loss in sorted(by_loss, key=lambda loss: (abs(float(loss) - _USUAL_LOSS), float(loss))):
            key = by_loss[loss]
            if key is not None and key != baseline:
                return results.of(key)
    return next((found for found in results.conditions[1:] if found.condition.role == "condition"), None)


def answer(results: Results) -> str:
    """One sentence with the answer; a second one says what cannot be told."""
    found = chosen(results)
    if found is None:
        return "Only the unpruned model and its rivals were measured."
    data, metric = main_data(results), main_metric(results)
    name, on = words.code(found.condition.name), words.code(data)
    if found.condition.role == "rival":
        name += f" ({found.condition.series}, a rival)"
    change = found.on[data].differences.get(metric) if data in found.on else None
    speed = None
    if found.speed:
        ratio, interval = words.times(found.speed.speedup, 1)
        speed = f"is {ratio}{f' ({interval})' if interval else ''} as fast as the unpruned model"
    if change is None:
        return f"{name} {speed or 'was measured'}."
    effect = _effect(metric, change, on)
    if effect[0].isupper():
        return (
            f"{name} {speed}. {effect}" if speed else f"{name}: {effect[0].lower()}{effect[1:]} No speed was measured."
        )
    return f"{name} {speed} and {effect}" if speed else f"{name} {effect} No speed was measured."


def _effect(metric: str, change: Estimate, on: str) -> str:
    """What a condition does to a metric, as the end of a sentence, or as one if the interval has both signs."""
    name, points = words.short(metric), " points" if words.is_share(metric) else ""
    size = words.amount(metric, change.value)
    if not words.interval(metric, change):
        kind = "gain" if change.value > 0 else "loss"
        return f"The measured {kind} of {name} on {on} is {size}{points}, without an interval."
    if change.low > 0:
        return f"gains {size}{points} ({words.interval(metric, change)}) of {name} on {on}."
    if change.high < 0:
        return f"loses {size}{points} ({words.interval(metric, words.loss(change))}) of {name} on {on}."
    text, interval = words.difference(metric, change)
    detectable = change.detectable
    shown = f"; a loss of {words.amount(metric, detectable)} would most likely have shown" if detectable else ""
    return f"Its difference in {name} on {on} cannot be told from 0: {text}{points} ({interval}){shown}."


def loss_table(results: Results, front: FrontResults, number: int) -> Table:
    """The setting to take for each loss that one may be ready for."""
    name = words.short(front.metric)
    points = ", points" if words.is_share(front.metric) else ""
    columns = [
        Column("You can lose", is_number=False),
        Column("Take", is_number=False),
        Column("Speed-up"),
        Column(f"Difference{points}"),
        Column("To be sure, take", is_number=False),
        Column("Front at this loss"),
    ]
    rows = []
    for loss, key in front.recommended_for_loss.items():
        estimate = front.speed_at_loss.get(loss)
        at_loss = cell(words.times(estimate)) if estimate else Cell("never reached")
        rows.append(
            [
                Cell(words.so_many_points(float(loss), front.metric)),
                *_taken(results, front, key),
                _sure(results, front, loss),
                at_loss,
            ]
        )
    return plain_table(
        f"losses-{number}", f"The fastest setting for each loss of {name} on {front.data}", columns, rows
    )


def speed_table(results: Results, front: FrontResults, number: int) -> Table:
    """The setting to take for each speed that one may need."""
    name = words.short(front.metric)
    points = ", points" if words.is_share(front.metric) else ""
    columns = [
        Column("You need", is_number=False),
        Column("Take", is_number=False),
        Column("Speed-up"),
        Column(f"Difference{points}"),
        Column("Images/s"),
    ]
    rows = []
    for speed, key in front.recommended_for_speed.items():
        found = results.of(key).speed if key else None
        rate = cell(words.rate(found.images_per_second)) if found else NOTHING
        rows.append([Cell(f"{float(speed):,g} images/s"), *_taken(results, front, key), rate])
    return plain_table(
        f"speeds-{number}", f"The setting with the best {name} on {front.data} for each speed", columns, rows
    )


@dataclass(frozen=True, slots=True)
class Use:
    """How to embed with a condition."""

    name: str
    command: str
    policy: str | None
    """The policy as JSON, which has to be saved as `policy.yaml` first; None if it ships with clipsieve."""


def uses(results: Results) -> list[Use]:
    """How to embed with each condition that is recommended anywhere."""
    found = [by for front in results.fronts for by in (front.recommended_for_loss, front.recommended_for_speed)]
    keys = dict.fromkeys(key for by in found for key in by.values() if key)
    return [_use(results.of(key).condition, results.record.baseline) for key in keys]


def _sure(results: Results, front: FrontResults, loss: str) -> Cell:
    """The fastest condition whose whole interval is within a loss."""
    key = next(iter(front.surely_within_loss.get(loss, [])), None)
    if key is None:
        return Cell("nothing measured here")
    found = results.of(key)
    return Cell(words.code(found.condition.name), words.times(found.speed.speedup)[0] if found.speed else "")


def _taken(results: Results, front: FrontResults, key: str | None) -> list[Cell]:
    if key is None:
        return [Cell("nothing measured here"), NOTHING, NOTHING]
    found = results.of(key)
    change = found.on[front.data].differences.get(front.metric)
    series = "" if found.condition.role == "baseline" else found.condition.series
    return [
        Cell(words.code(found.condition.name), series),
        cell(words.times(found.speed.speedup)) if found.speed else NOTHING,
        cell(words.difference(front.metric, change)) if change else Cell("0.0"),
    ]


def _use(condition: ConditionRecord, baseline: ConditionRecord) -> Use:
    policy, is_shipped = UNPRUNED, True
    if condition.policy is not None:
        policy = str(condition.policy.get("name", ""))
        is_shipped = policy in policy_names()
    parts = ["clipsieve", "embed", "IMAGES", "--out", "STORE", "--model", condition.model]
    parts += ["--pretrained", condition.pretrained] if condition.pretrained else []
    parts += ["--policy", policy if is_shipped else "policy.yaml"]
    parts += ["--adapter", condition.adapter] if condition.adapter else []
    parts += ["--image-size", str(condition.image_size)] if condition.image_size != baseline.image_size else []
    command = shlex.join([*parts, "--precision", condition.precision])
    return Use(condition.name, command, None if is_shipped else json.dumps(condition.policy, ensure_ascii=False))
