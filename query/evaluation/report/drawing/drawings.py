"""Drawings in every form: for the page in two widths, and as files for papers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from query.evaluation.report import words
from query.evaluation.report.drawing.palette import VARIABLE_OF
from query.evaluation.report.drawing.scatter import draw_scatter, points_of, tips_of
from query.evaluation.report.drawing.waterfall import draw_waterfall
from query.evaluation.report.tables.losses import Losses
from query.evaluation.report.tables.table import Cell, Column, Table, cell, plain_table
from query.evaluation.results import FrontResults, Results
from query.pictures.inline import inline_svg
from query.pictures.plot import drawing_settings, write_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing. `wide` and `narrow` are `svg` elements of HTML."""

    figure: "Figure"
    """The wide one, for files."""
    wide: str
    narrow: str
    table: Table | None = None
    """The numbers that are drawn, if no other table has just these."""

    def write(self, path: Path) -> None:
        """Write the wide drawing as a file, in the format of its suffix.

        Raises:
            StoreError: If the file cannot be written.
        """
        with drawing_settings():
            write_plot(path, self.figure)


def scatter_of(results: Results, front: FrontResults, number: int) -> Drawing | None:
    """Recall against speed on one data set; None if the baseline was not timed."""
    points = points_of(results, front)
    if not points:
        return None
    metric = words.short(front.metric)
    title = (
        f"{metric} against images per second of {words.plural(len(points), 'condition')} on {front.data}. "
        "The table below has the numbers."
    )
    columns = [
        Column("Condition", is_number=False),
        Column(metric + words.unit(front.metric)),
        Column("Images/s"),
        Column("Front", is_number=False),
    ]
    rows = [
        [
            Cell(
                words.code(point.name),
                point.results.condition.series if point.results.condition.role != "baseline" else "",
            ),
            cell(words.value(front.metric, point.recall)),
            cell(words.rate(point.rate)),
            Cell("on the front" if point.results.condition.key in front.keys else ""),
        ]
        for point in points
    ]
    table = plain_table(
        f"plotted-{number}", f"What is plotted: {metric} and images per second on {front.data}", columns, rows
    )
    return _drawing(
        lambda is_narrow: draw_scatter(results, front, is_narrow=is_narrow),
        f"plot-{number}", title, tips_of(results, front), table,
    )  # fmt: skip


def waterfall_of(losses: Losses, number: int) -> Drawing:
    """Where recall goes, step by step."""
    names = "; ".join(step.name for step in losses.steps)
    metric = words.short(losses.metric)
    title = f"{metric} on {losses.data} after each step: {names}. The table below has the numbers."
    return _drawing(
        lambda is_narrow: draw_waterfall(losses, is_narrow=is_narrow), f"steps-{number}-plot", title, {}, None
    )


def _drawing(
    draw: Callable[..., "Figure"], name: str, title: str, tips: dict[str, str], table: Table | None
) -> Drawing:
    with drawing_settings():
        figure = draw(is_narrow=False)
        wide, narrow = (
            inline_svg(drawn, f"{name}-{width}", title, VARIABLE_OF, tips)
            for width, drawn in (("wide", figure), ("narrow", draw(is_narrow=True)))
        )
    return Drawing(figure, wide, narrow, table)
