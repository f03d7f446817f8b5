"""Recall against images per second: every condition with its intervals, and the front."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from query.evaluation.report import words
from query.evaluation.report.drawing.labels import place_labels
from query.evaluation.report.drawing.palette import LIGHT, Style, style_of
from query.evaluation.report.drawing.scale import RecallScale, scale_of
from query.evaluation.results import ConditionResults, Estimate, FrontResults, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOG_ABOVE = 8
"""Rates that differ by more than this factor are drawn on a logarithmic axis."""
_REACH = 1.35
"""By which factor the axis goes beyond the slowest and the fastest condition, at most."""
BASELINE = "unpruned"


@dataclass(frozen=True, slots=True)
class Point:
    """A condition on the plot."""

    results: ConditionResults
    rate: Estimate
    recall: Estimate

    @property
    def name(self) -> str:
        """The condition's name."""
        return self.results.condition.name


def points_of(results: Results, front: FrontResults) -> list[Point]:
    """The conditions that were timed and measured on the front's data set, the baseline first; none without it."""
    points = [
        Point(found, found.speed.images_per_second, found.on[front.data].metrics[front.metric])
        for found in results.conditions
        if found.speed and front.data in found.on and front.metric in found.on[front.data].metrics
    ]
    return points if points and points[0].results.condition.role == "baseline" else []


def styles_of(results: Results) -> dict[str, Style]:
    """The style of each series, by its name in the legend."""
    kinds: dict[bool, list[str]] = {False: [], True: []}
    for found in [one for one in results.conditions[1:] if one.speed]:
        series = kinds[found.condition.role == "rival"]
        if (name := series_of(results, found)) not in kinds[False] + kinds[True]:
            series.append(name)
    return {name: style_of(number, kind) for kind, names in kinds.items() for number, name in enumerate(names)}


def series_of(results: Results, found: ConditionResults) -> str:
    """What the legend calls the series of a condition. 8 bits are apart, unless the baseline has them, too."""
    condition, baseline = found.condition, results.record.baseline
    is_apart = condition.has_8_bits and condition.precision != baseline.precision
    is_named = condition.precision in condition.series.lower()
    return f"{condition.series}, {condition.precision}" if is_apart and not is_named else condition.series


def draw_scatter(results: Results, front: FrontResults, *, is_narrow: bool) -> "Figure":
    """Draw the plot, for a page or paper, or narrow for a phone. The gid of a point is `point-` and its number.

    Args:
        results: With at least one condition that was timed on the front's data set.
        front: What is drawn.
        is_narrow: Whether it is drawn for a phone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 6.4) if is_narrow else (9.6, 5.6), layout="constrained", facecolor=LIGHT["paper"])
    axes = figure.add_subplot(facecolor=LIGHT["paper"])
    points, styles = points_of(results, front), styles_of(results)
    scale = scale_of([point.recall for point in points])
    _set_up(axes, points, front, scale, is_narrow)
    shown = [point for point in points if scale.shows(point.recall)]
    _draw_front(axes, points, front, scale)
    seen: set[str] = set()
    for number, point in enumerate(points):
        if point in shown:
            _draw_point(axes, number, point, series_of(results, point.results), styles, scale, seen)
    figure.legend(
        loc="outside lower left" if is_narrow else "outside right upper", ncols=2 if is_narrow else 1, frameon=False,
        fontsize=8.5, labelcolor=LIGHT["ink"], handletextpad=0.7, columnspacing=1.2,
    )  # fmt: skip
    hidden = [point.name for point in points if point not in shown]
    if hidden:
        names = ", ".join(hidden) if len(hidden) <= 2 else words.plural(len(hidden), "condition")
        axes.text(0.01, 0.012, f"below the plot: {names}", transform=axes.transAxes, color=LIGHT["soft"], fontsize=8.5)
    _name_front(axes, shown, front, scale)
    return figure


def tips_of(results: Results, front: FrontResults) -> dict[str, str]:
    """What to show over each point, by gid."""
    tips = {}
    for number, point in enumerate(points_of(results, front)):
        recall, rate = words.value(front.metric, point.recall)[0], words.rate(point.rate)[0]
        tips[f"point-{number}"] = f"{point.name}: {words.short(front.metric)} {recall}, {rate} images/s"
    return tips


def _set_up(axes: "Axes", points: Sequence[Point], front: FrontResults, scale: RecallScale, is_narrow: bool) -> None:
    """Set scales, limits and labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    baseline = points[0]
    scale.set_up(axes)
    left, right = _rates(point.rate for point in points if scale.shows(point.recall))
    if right > _LOG_ABOVE * _REACH**2 * left:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,g}"))
        axes.set_xlim(left / 1.15, right * 1.25)
    else:
        axes.set_xlim(left - 0.06 * (right - left) - 0.01 * left, right + 0.1 * (right - left) + 0.01 * right)
    axes.set_xlabel("images per second", color=LIGHT["ink"])
    axes.set_ylabel(f"{words.short(front.metric)}{words.unit(front.metric)} (logit scale)", color=LIGHT["ink"])
    rate = baseline.rate.value
    above = axes.secondary_xaxis("top", functions=(lambda found: found / rate, lambda ratio: ratio * rate))
    above.set_xlabel(f"speed against {BASELINE}", color=LIGHT["soft"])
    above.xaxis.set_major_locator(MaxNLocator(4 if is_narrow else 8, steps=[1, 2, 2.5, 5, 10]))
    above.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
    for one in (axes, above):
        one.xaxis.set_minor_locator(NullLocator())
        one.tick_params(colors=LIGHT["soft"], length=0)
        for spine in one.spines.values():
            spine.set_visible(False)
    axes.grid(color=LIGHT["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axhline(scale.place(baseline.recall.value), color=LIGHT["soft"], linewidth=1, linestyle=(0, (2, 3)), zorder=2)


def _rates(rates: Iterable[Estimate]) -> tuple[float, float]:
    """The ends of the axis: intervals that go far beyond all values are cut there."""
    rates = list(rates)
    values, ends = [rate.value for rate in rates], [end for rate in rates for end in words.within(rate)]
    return max(min(ends), min(values) / _REACH), min(max(ends), max(values) * _REACH)


def _draw_front(axes: "Axes", points: Sequence[Point], front: FrontResults, scale: RecallScale) -> None:
    by_key = {point.results.condition.key: point for point in points}
    on_front = [by_key[key] for key in front.keys if key in by_key]
    x, y = [point.rate.value for point in on_front], [scale.place(point.recall.value) for point in on_front]
    style = {
        "color": LIGHT["front"],
        "linewidth": 7,
        "solid_capstyle": "round",
        "solid_joinstyle": "round",
        "zorder": 1,
    }
    axes.plot(x, y, label="front", **style)
    axes.plot(x, y, "o", markersize=14, markeredgewidth=0, **style)  # a front may be a single condition


def _draw_point(
    axes: "Axes",
    number: int,
    point: Point,
    series: str,
    styles: dict[str, Style],
    scale: RecallScale,
    seen: set[str],
) -> None:
    condition = point.results.condition
    is_baseline = condition.role == "baseline"
    style = Style(LIGHT["ink"], "*", True) if is_baseline else styles[series]
    x, y = point.rate.value, scale.place(point.recall.value)
    left, right = words.within(point.rate)
    low, high = scale.interval(point.recall)
    axes.errorbar(
        x, y, fmt="none", ecolor=style.colour, elinewidth=0.9 if style.is_filled else 0.6, zorder=3,
        xerr=[[max(x - left, 0)], [max(right - x, 0)]], yerr=[[max(y - low, 0)], [max(high - y, 0)]],
    )  # fmt: skip
    label = BASELINE if is_baseline else series
    axes.plot(
        x, y, linestyle="none", marker=style.marker, markersize=12 if is_baseline else 7 if style.is_filled else 5.5,
        markerfacecolor=style.colour if style.is_filled else LIGHT["paper"], markeredgecolor=style.colour,
        markeredgewidth=1.1, zorder=6 if is_baseline else 5 if style.is_filled else 4, gid=f"point-{number}",
        label=None if label in seen else label,
    )  # fmt: skip
    seen.add(label)


def _name_front(axes: "Axes", shown: Sequence[Point], front: FrontResults, scale: RecallScale) -> None:
    # the baseline is in the legend
    named = [point for point in shown[1:] if point.results.condition.key in front.keys]
    places = [(point.rate.value, scale.place(point.recall.value)) for point in shown]
    texts = [(point.name, point.rate.value, scale.place(point.recall.value)) for point in named]
    place_labels(axes, texts, places, colour=LIGHT["ink"], paper=LIGHT["paper"])
