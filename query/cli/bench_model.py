"""`clipsieve bench model`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from query.settings import BenchModelSettings

SUMMARY = "time the image tower under policies, side by side"
EXAMPLES = (
    "  clipsieve bench model --model ViT-B-16 --policies reference,balanced,fast\n"
    "  clipsieve bench model --model ViT-L-14 --device cuda --precision bf16 --compile --json-file results.json"
)
SETTINGS = "query.settings:BenchModelSettings"


def run(settings: "BenchModelSettings") -> None:
    """Time the towers and show the results."""
    from query.bench.model import bench_model
    from query.cli.console import show

    results = bench_model(settings)
    show(settings, results, lambda: print_bench(results))


def print_bench(results: dict[str, Any]) -> None:
    """Print side-by-side timings: one row per condition."""
    from query.cli.console import console, table, timed

    height, width = results["image_size"]
    compiled = ", compiled" if results["compiled"] else ""
    title = f"{results['model']} at {height} x {width}, {results['precision']}, batch {results['batch_size']}{compiled}"
    found = table(title, timed(results["environment"]))
    headings = (
        "images/s",
        "range",
        "speed-up",
        "GMACs",
        "theoretical",
        "measured / theoretical",
        "peak MB",
        "peak ratio",
    )
    found.add_column("condition")
    for heading in headings:
        found.add_column(heading, justify="right")
    _, unpruned, *_ = results["conditions"]
    for condition in results["conditions"]:
        low, high = condition["range"]
        found.add_row(
            condition["name"],
            f"{condition['images_per_second']:.1f}",
            f"{low:.1f}..{high:.1f}",
            f"{condition['measured']:.2f}x",
            f"{condition['gmacs']:.3f}",
            f"{condition['theoretical']:.2f}x",
            f"{condition['measured'] / condition['theoretical']:.2f}",
            f"{condition['peak_bytes'] / 1e6:.0f}",
            f"{condition['peak_bytes'] / unpruned['peak_bytes']:.2f}",
        )
    console().print(found)
