"""`clipsieve bench model`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from query.settings import BenchModelSettings

SUMMARY = "time the image tower under policies and precisions, side by side"
EXAMPLES = (
    "  clipsieve bench model --model ViT-B-16 --policies reference,balanced,fast\n"
    "  clipsieve bench model --model ViT-B-16 --policies fast --precisions fp32,int8\n"
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
    """Print side-by-side timings: one row per condition, with its precision if there are several."""
    from pipeline.model.pruning.names import UNPRUNED
    from query.cli.console import console, table, timed

    height, width = results["image_size"]
    compiled = ", compiled" if results["compiled"] else ""
    conditions = results["conditions"]
    is_mixed = len({condition["precision"] for condition in conditions}) > 1
    precision = "several precisions" if is_mixed else results["precision"]
    title = f"{results['model']} at {height} x {width}, {precision}, batch {results['batch_size']}{compiled}"
    found = table(title, timed(results["environment"]))
    headings = (
        *(["precision"] if is_mixed else []),
        "images/s",
        "range",
        "speed-up",
        *(["over float"] if is_mixed else []),
        "over open_clip",
        "GMACs",
        "theoretical",
        "measured / theoretical",
        "peak MB",
        "peak ratio",
    )
    found.add_column("condition")
    for heading in headings:
        found.add_column(heading, justify="right")
    unpruned = next(condition for condition in conditions if condition["name"] == UNPRUNED)
    for condition in conditions:
        low, high = condition["range"]
        over_float = condition["over_float"]
        found.add_row(
            condition["name"],
            *([condition["precision"]] if is_mixed else []),
            f"{condition['images_per_second']:.1f}",
            f"{low:.1f}..{high:.1f}",
            f"{condition['measured']:.2f}x",
            *([f"{over_float:.2f}x" if over_float else ""] if is_mixed else []),
            f"{condition['over_open_clip']:.2f}x",
            f"{condition['gmacs']:.3f}",
            f"{condition['theoretical']:.2f}x",
            f"{condition['measured'] / condition['theoretical']:.2f}",
            f"{condition['peak_bytes'] / 1e6:.0f}",
            f"{condition['peak_bytes'] / unpruned['peak_bytes']:.2f}",
        )
    console().print(found)
