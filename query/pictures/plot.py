"""Plots of recall against measured speed, one line per series. Home of matplotlib, which is optional."""

import importlib.util
from pathlib import Path
from typing import Any

from pipeline.durable.atomic import write_atomically
from pipeline.errors import ConfigError
from pipeline.measure.recall import recall_sum
from query.formats import PLOTS

_MARKERS = "oDs^vP<>Xh*p"
_LOWEST = 0.6  # bottom of the plot as a share of the unpruned recall; lower points would squeeze the good ones


def refuse_missing_matplotlib() -> None:
    """Check that plots can be drawn.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError('--plot needs matplotlib; run pip install "clipsieve[plot]" to install it')


def plot_points(path: Path, results: dict[str, Any]) -> None:
    """Plot the results of `bench policies`: the sum of text->image R@1, R@5 and R@10 against the measured speed-up.

    A line joins the points of a series that no other point of it beats.

    Args:
        path: File to write, in the format of its suffix: one of `PLOTS`, or PNG without a suffix.
        results: As returned by `bench_policies`.

    Raises:
        StoreError: If the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    series: dict[str, list[tuple[float, float]]] = {}
    for point in results["points"]:
        total = 100 * recall_sum(point["metrics"])
        series.setdefault(point["series"], []).append((point["measured"], total))
    unpruned = next(iter(series.values()))[0]
    for number, (name, points) in enumerate(series.items()):
        style = {"marker": _MARKERS[number % len(_MARKERS)], "color": f"C{number % 10}"}
        axes.scatter(*zip(*points, strict=True), s=30, label=name, **style)
        axes.plot(*zip(*_front(points), strict=True), linewidth=1.2, color=style["color"])
    axes.axhline(unpruned[1], color="grey", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=max(_LOWEST * unpruned[1], axes.get_ylim()[0]))
    axes.set_xlabel("measured speed-up of the image tower, against unpruned")
    axes.set_ylabel("text->image R@1 + R@5 + R@10, %")
    environment = results["environment"]
    place = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    axes.set_title(
        f"{results['num_images']} images of {results['dataset']}, {place}, {environment['precision']}, "
        f"{environment['date']}",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    kind = PLOTS.get(path.suffix.lower(), "png")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=kind))


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other point of the series beats in both speed and recall, slowest first."""
    front: list[tuple[float, float]] = []
    for speed, total in sorted(points, reverse=True):
        if not front or total > front[-1][1]:
            front.append((speed, total))
    return front[::-1]
