"""`clipsieve bench policies`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from query.settings import BenchPoliciesSettings

SUMMARY = "measure recall against speed for many policies, side by side"
EXAMPLES = (
    "  clipsieve bench policies configs/bench/grids/rivals.yaml --images photos --captions captions.tsv \\\n"
    "      --model ViT-B-16 --pretrained laion2b_s34b_b88k --json-file rivals.json --plot rivals.png"
)
SETTINGS = "query.settings:BenchPoliciesSettings"


def run(settings: "BenchPoliciesSettings") -> None:
    """Measure every point of a grid, show the results, and plot them if --plot is given."""
    from query.bench.policies import bench_policies
    from query.cli.console import Lines, note, show
    from query.pictures.plot import plot_points, refuse_missing_matplotlib

    if settings.plot:
        refuse_missing_matplotlib()
    with Lines("bench policies") as lines:
        results = bench_policies(settings, lines)
    for warning in results["warnings"]:
        note(f"warning: {warning}")
    plot = (lambda: plot_points(settings.plot, results)) if settings.plot else None
    show(settings, results, lambda: print_points(results), plot)


def print_points(results: dict[str, Any]) -> None:
    """Print the recall and speed of every policy, series by series."""
    from pipeline.measure.recall import KS, recall_sum
    from query.cli.console import console, table, timed

    environment = results["environment"]
    title = f"{results['model']} on {results['dataset']}: {results['num_images']} images; text->image recall in %"
    found = table(title, timed(environment, f"{environment['precision']}, "))
    for heading in ("series", "policy"):
        found.add_column(heading)
    for heading in ("R@1", "R@5", "R@10", "sum", "images/s", "speed-up", "GMACs", "theoretical"):
        found.add_column(heading, justify="right")
    for point in results["points"]:
        recall = [point["metrics"][f"image_retrieval_recall@{k}"] for k in KS]
        found.add_row(
            point["series"],
            point["name"],
            *[f"{100 * value:.1f}" for value in (*recall, recall_sum(point["metrics"]))],
            f"{point['images_per_second']:.1f}",
            f"{point['measured']:.2f}x",
            f"{point['gmacs']:.3f}",
            f"{point['theoretical']:.2f}x",
        )
    console().print(found)
    equal = table("text->image R@1 + R@5 + R@10 in % at equal measured speed")
    equal.add_column("series")
    for speed in next(iter(results["at_equal_speed"].values())):
        equal.add_column(speed, justify="right")
    for series, totals in results["at_equal_speed"].items():
        equal.add_row(series, *["-" if total is None else f"{100 * total:.1f}" for total in totals.values()])
    console().print(equal)
