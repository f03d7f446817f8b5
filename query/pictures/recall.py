"""Plot an index's recall of text queries against the time of one query."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from query.formats import plot_path
from query.pictures.plot import drawing_settings, write_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from indexer.manifest import IndexManifest


def refuse_undrawable(path: Path | None) -> None:
    """Check that a plot can be drawn to a file.

    Raises:
        ConfigError: If no format has the file's suffix.
    """
    if path is None:
        return
    try:
        plot_path(path)
    except ValueError as error:
        raise ConfigError(f"plot = {path}: {error}") from error


def write_recall_plot(path: Path, manifest: "IndexManifest") -> None:
    """Draw recall@10 with its 95 % interval, and the 5th percentile over queries, against the median time of a query.

    Args:
        path: File to write, in the format of its suffix: one of `PLOTS`, or PNG without a suffix.
        manifest: An index with a curve.

    Raises:
        ConfigError: If the index has no curve.
        StoreError: If the file cannot be written.
    """
    if not manifest.proof.text:
        raise ConfigError(f"plot = {path}: the index has no curve ({manifest.proof.reason}); nothing was drawn")
    with drawing_settings():
        write_plot(path, _draw(manifest))


def _draw(manifest: "IndexManifest") -> "Figure":
    from matplotlib.figure import Figure

    points = manifest.proof.text
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    times = [point.p50_ms or 0.0 for point in points]
    means = [point.recall_at_10.mean for point in points]
    below = [point.recall_at_10.mean - point.recall_at_10.low for point in points]
    above = [point.recall_at_10.high - point.recall_at_10.mean for point in points]
    axes.errorbar(times, means, yerr=[below, above], marker="o", capsize=3, label="recall@10, mean over queries (95 %)")
    axes.plot(times, [point.recall_at_10_p5 for point in points], "--", marker="v", label="recall@10, 5th percentile")
    chosen = manifest.proof.at(manifest.point)
    if chosen and chosen.p50_ms is not None:
        axes.scatter([chosen.p50_ms], [chosen.recall_at_10.mean], s=160, facecolors="none", edgecolors="black",
                     label=f"searched here: effort {manifest.point.effort}")  # fmt: skip
    if manifest.proof.min_recall:
        axes.axhline(manifest.proof.min_recall, color="grey", linewidth=0.8, linestyle=":", label="asked for")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("one text query on one thread, median ms")
    axes.set_ylabel("recall against exact search")
    axes.set_title(
        f"{manifest.recipe}, {manifest.num_vectors} vectors of {manifest.embedding_dim} dimensions", fontsize=10
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure
