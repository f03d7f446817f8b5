"""Everything that the report says, in its order, before it becomes HTML or Markdown."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from query.evaluation.raw.folder import SweepFolder
from query.evaluation.report import words
from query.evaluation.report.answer import Use, answer, chosen, loss_table, main_data, main_metric, speed_table, uses
from query.evaluation.report.definitions import definitions
from query.evaluation.report.drawing.drawings import Drawing, scatter_of, waterfall_of
from query.evaluation.report.examples import Example, examples_of
from query.evaluation.report.pictures import KeptPatches, kept_patches
from query.evaluation.report.tables.conditions import (
    conditions_table,
    fidelity_table,
    metric_tables,
    settings_table,
    variants_table,
)
from query.evaluation.report.tables.eight_bits import eight_bits_table
from query.evaluation.report.tables.losses import Losses, gates_table, losses_of, mixed_table, steps_table
from query.evaluation.report.tables.origin import data_table, environment_table
from query.evaluation.report.tables.table import Cell, Table
from query.evaluation.results import FrontResults, Results

_NO_PHOTOS = "This report leaves out example queries and photographs (--no-photos)."


@dataclass(frozen=True, slots=True, kw_only=True)
class OfData:
    """What is shown of one data set."""

    name: str
    plot: Drawing | None
    conditions: Table
    eight_bits: Table | None
    """None if no condition in 8 bits is measured in float, too."""
    metrics: list[Table]
    variants: Table | None
    fidelity: Table | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OfLoss:
    """One decomposition."""

    title: str
    plot: Drawing
    steps: Table
    notes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The report."""

    title: str
    answer: str
    figures: list[Cell]
    """The numbers below the answer."""
    warnings: Sequence[str]
    photos_note: str | None
    """Says so if photographs and queries are left out."""
    recommended: list[Table]
    uses: list[Use]
    data: list[OfData]
    """The data sets that conditions were compared on, the main one first."""
    losses: list[OfLoss]
    compared_with: str | None
    """The condition whose answers are beside the unpruned ones."""
    examples: list[Example]
    kept_patches: list[KeptPatches]
    mixed: Table | None
    gates: Table | None
    gate_notes: Sequence[str]
    definitions: list[tuple[str, str]]
    origin: list[Table]
    settings: Table
    commands: Sequence[str]


def contents_of(results: Results, folder: SweepFolder, photos: bool = True) -> Contents:
    """Put together everything that the report says. Without `photos`, it holds no photograph and no query.

    Raises:
        StoreError: If a raw file of the examples is missing or damaged.
    """
    found = chosen(results)
    recommended = []
    for number, front in enumerate(results.fronts):
        recommended.append(loss_table(results, front, number))
        if front.recommended_for_speed:
            recommended.append(speed_table(results, front, number))
    model = re.split(r"[:/]", results.record.baseline.model)[-1]
    names = [front.data for front in results.fronts] or [data.name for data in results.record.data]
    return Contents(
        title=f"{model}: recall against speed on {', '.join(names)}",
        answer=answer(results),
        figures=_figures(results),
        warnings=results.record.warnings,
        photos_note=None if photos else _NO_PHOTOS,
        recommended=recommended,
        uses=uses(results),
        data=_of_data(results),
        losses=[
            OfLoss(
                title=f"{one.name} on {one.data}",
                plot=waterfall_of(one, number),
                steps=steps_table(one, number),
                notes=[*_recovered(one), *one.notes],
            )
            for number, one in enumerate(losses_of(results))
        ],
        compared_with=found.condition.name if found else None,
        examples=examples_of(results, folder, found) if found and photos else [],
        kept_patches=kept_patches(results, folder) if photos else [],
        mixed=mixed_table(results) if results.mixed else None,
        gates=gates_table(results.gates) if results.gates else None,
        gate_notes=results.gates.notes if results.gates else [],
        definitions=definitions(results),
        origin=[data_table(results), environment_table(results)],
        settings=settings_table(results, folder),
        commands=results.record.commands,
    )


def _recovered(losses: Losses) -> list[str]:
    """How much of the loss of pruning the adapter brings back."""
    if losses.recovery is None:
        return []
    share, interval = words.value("recall@", losses.recovery)
    if not interval:  # a share of nothing
        return ["Whether pruning costs anything here is not sure, so there is no share that the adapter brings back."]
    return [f"The adapter brings back {share} % ({interval}) of what pruning costs."]


def _of_data(results: Results) -> list[OfData]:
    fronts: Mapping[str, FrontResults] = {front.data: front for front in reversed(results.fronts)}
    metric = main_metric(results)
    names = list(dict.fromkeys(name for found in results.conditions for name in found.on))
    return [
        OfData(
            name=name,
            plot=scatter_of(results, fronts[name], number) if name in fronts else None,
            conditions=conditions_table(results, name, _metric_on(results, name, metric), fronts.get(name)),
            eight_bits=eight_bits_table(results, name, _metric_on(results, name, metric)),
            metrics=metric_tables(results, name),
            variants=variants_table(results, name, _metric_on(results, name, metric)),
            fidelity=fidelity_table(results, name),
        )
        for number, name in enumerate(names)
    ]


def _metric_on(results: Results, data: str, metric: str) -> str:
    """The metric of the sweep, or the first one that a data set has: one of classes has others."""
    known = next(found.on[data].metrics for found in results.conditions if data in found.on)
    return metric if metric in known else next(iter(known))


def _figures(results: Results) -> list[Cell]:
    """The numbers of the answer, and how much was measured."""
    found, metric = chosen(results), main_metric(results)
    data = next(one for one in results.record.data if one.name == main_data(results))
    figures = []
    if found and found.speed:
        ratio, interval = words.times(found.speed.speedup)
        figures.append(Cell(ratio, f"speed of {words.code(found.condition.name)}, {interval}"))
    change = found.on[data.name].differences.get(metric) if found and data.name in found.on else None
    if change:
        size, interval = words.difference(metric, change)
        unit = "points of " if words.is_share(metric) else ""
        figures.append(Cell(size, f"{unit}{words.short(metric)}, {interval}"))
    rivals = sum(one.condition.role == "rival" for one in results.conditions)
    figures.append(Cell(str(len(results.conditions)), f"conditions, {rivals} of them rivals"))
    if {"num_images", "num_queries"} <= data.counts.keys():
        images = words.plural(data.counts["num_images"], "image")
        figures.append(Cell(f"{data.counts['num_queries']:,}", f"queries over {images} of {data.name}"))
    return figures
