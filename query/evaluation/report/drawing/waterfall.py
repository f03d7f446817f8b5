"""Where recall goes, step by step, as a waterfall: each step is a bar from the value before it to its own."""

from typing import TYPE_CHECKING

from query.evaluation.report import words
from query.evaluation.report.drawing.palette import LIGHT
from query.evaluation.report.tables.losses import Losses
from query.evaluation.results import Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAR = 0.36
_LINE = 0.19
"""Height of a line of text on a phone, as a share of a row."""
_MOST_LETTERS = 44


def draw_waterfall(losses: Losses, *, is_narrow: bool) -> "Figure":
    """Draw what a loss is made of, for a page or paper, or narrow for a phone. Steps run from top to bottom."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    steps, metric = losses.steps, losses.metric
    size = (4.4 if is_narrow else 8.6, (0.9 if is_narrow else 0.72) * len(steps) + 0.65)
    figure = Figure(figsize=size, layout="constrained", facecolor=LIGHT["paper"])
    axes = figure.add_subplot(facecolor=LIGHT["paper"])
    ends = [end for step in steps for end in (_start(step), step.total.value, *_whisker(step))]
    room = 0.05 * (max(ends) - min(ends)) + 1e-4
    axes.set_xlim(min(ends) - room, max(ends) + room)
    axes.set_ylim(len(steps) - 0.55, -0.85)
    for number, step in enumerate(steps):
        _draw_step(axes, number, losses.before[number], step)
        _name_step(axes, number - _BAR / 2 - 0.06, step, metric, is_narrow)
    scale = 100 if words.is_share(metric) else 1
    axes.xaxis.set_major_locator(MaxNLocator(5 if is_narrow else 8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda found, _: f"{scale * found:g}"))
    axes.set_xlabel(f"{words.short(metric)}{words.unit(metric)}", color=LIGHT["ink"])
    axes.set_yticks([])
    axes.tick_params(colors=LIGHT["soft"], length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(axis="x", color=LIGHT["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    return figure


def _start(step: Step) -> float:
    return step.total.value - (step.change.value if step.change else 0.0)


def _whisker(step: Step) -> tuple[float, float]:
    """Where the step may end, if it starts where it does."""
    if step.change is None:
        return step.total.value, step.total.value
    low, high = words.within(step.change)
    return _start(step) + low, _start(step) + high


def _draw_step(axes: "Axes", number: int, before: int, step: Step) -> None:
    """Draw a step in row `number`, from the value of row `before`."""
    start, end = _start(step), step.total.value
    colour = LIGHT["soft"] if step.change is None else LIGHT["loss"] if end < start else LIGHT["gain"]
    if step.change is None:
        axes.plot([end, end], [number - _BAR / 2, number + _BAR / 2], color=LIGHT["ink"], linewidth=3.5, zorder=4)
    else:
        axes.barh(number, end - start, left=start, height=_BAR, color=colour, zorder=3)
        axes.plot([start, start], [before + _BAR / 2, number - _BAR / 2], color=LIGHT["soft"], linewidth=0.8,
                  linestyle=(0, (2, 2)), zorder=2)  # fmt: skip
        axes.plot([end, end], [number - _BAR / 2, number + _BAR / 2], color=LIGHT["ink"], linewidth=2, zorder=4)
    axes.plot(_whisker(step), [number, number], color=LIGHT["ink"], linewidth=1.2, zorder=5)


def _name_step(axes: "Axes", bottom: float, step: Step, metric: str, is_narrow: bool) -> None:
    """Write a step's name and what it changed above its bar: side by side, or below each other on a phone."""
    name = step.name if len(step.name) <= _MOST_LETTERS else f"{step.name[: _MOST_LETTERS - 15]}...{step.name[-12:]}"
    number, interval = words.difference(metric, step.change) if step.change else words.value(metric, step.total)
    style = {"transform": axes.get_yaxis_transform(), "va": "bottom", "fontsize": 9, "zorder": 3.5}
    style |= {"color": LIGHT["ink"], "bbox": {"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 0.8}}
    axes.text(0.005, bottom - (_LINE if is_narrow else 0), name, weight="bold", **style)
    place = {"x": 0.005, "ha": "left"} if is_narrow else {"x": 0.995, "ha": "right"}
    axes.text(y=bottom, s=f"{number} ({interval})" if interval else number, **place, **style)
