"""`clipsieve evaluate`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from query.settings import EvaluateSettings

SUMMARY = "measure recall and speed, pruned against unpruned"
EXAMPLES = (
    "  clipsieve evaluate --images photos --captions photos/captions.tsv\n"
    "  clipsieve evaluate --images photos --captions captions.tsv --keep-ratio 0.5 --json-file results.json \\\n"
    "      --model ViT-B-16-quickgelu --pretrained openai\n"
    "  clipsieve evaluate --images photos --captions captions.tsv --policies balanced,fast --precisions fp32,int8"
)
SETTINGS = "query.settings:EvaluateSettings"


def run(settings: "EvaluateSettings") -> None:
    """Evaluate and show the results."""
    from query.cli.console import Lines, note, show
    from query.evaluate import evaluate

    with Lines("evaluate") as lines:
        results = evaluate(settings, lines)
    for warning in results["warnings"]:
        note(f"warning: {warning}")
    show(settings, results, lambda: print_results(results))


def print_results(results: dict[str, Any]) -> None:
    """Print an evaluation: one row per condition, followed by its paired difference to the unpruned model."""
    from query.cli.console import console, table

    found = table(_title(results), _caption(results))
    for heading in ("condition", "t2i R@1", "R@5", "R@10", "i2t R@1", "R@5", "R@10"):
        found.add_column(heading, justify="left" if heading == "condition" else "right")
    for heading in ("images/s", "end to end", "GMACs", "cosine"):
        found.add_column(heading, justify="right")
    for condition in results["conditions"]:
        end_to_end = condition["images_per_second_end_to_end"]
        found.add_row(
            condition["name"],
            *[f"{100 * value:.1f}" for value in condition["metrics"].values()],
            f"{condition['images_per_second']:.1f}",
            f"{end_to_end:.1f}" if end_to_end else "-",
            f"{condition['gmacs']:.3f}",
            f"{condition['cosine_to_unpruned']:.4f}",
        )
        if "deltas" in condition:
            speedup = condition["speedup"]
            found.add_row(
                "  difference",
                *[f"{100 * delta['value']:+.1f}" for delta in condition["deltas"].values()],
                f"{speedup['measured']:.2f}x",
                "",
                f"{speedup['theoretical']:.2f}x",
                style="bold",
            )
            intervals = [f"{100 * low:+.1f}..{100 * high:+.1f}" for low, high in _of_all(condition, "ci95")]
            found.add_row("  95 %", *intervals, _interval(speedup), style="dim")
            losses = [f"{100 * loss:.1f}" if loss is not None else "" for loss in _of_all(condition, "detectable")]
            found.add_row("  could show a loss of", *losses, style="dim")
        if "against_float" in condition:
            against = condition["against_float"]
            found.add_row(
                f"  against {against['condition']}",
                *[f"{100 * against['deltas'][metric]['value']:+.1f}" for metric in condition["metrics"]],
                f"{against['speedup']['measured']:.2f}x",
                "",
                "",
                f"{against['fidelity']['cosine_mean']:.4f}",
                style="bold",
            )
        if "metrics_of_bare_texts" in condition:
            values = condition["metrics_of_bare_texts"].values()
            found.add_row("  unadapted texts", *[f"{100 * value:.1f}" for value in values])
    console().print(found)
    for recovery in results.get("recovery", []):
        goals = {"of_none": "the unpruned model", "of_none+control": "the unpruned control"}
        shares = [f"{_share(recovery[key])} against {goal}" for key, goal in goals.items() if key in recovery]
        console().print(f"{recovery['policy']}: the adapter recovers {', '.join(shares)} (t2i R@1 + R@5 + R@10)")


def _of_all(condition: dict[str, Any], name: str) -> list[Any]:
    return [delta.get(name) for delta in condition["deltas"].values()]


def _interval(speedup: dict[str, Any]) -> str:
    return "{:.2f}..{:.2f}x".format(*speedup["ci95"]) if speedup["ci95"] else ""


def _share(share: dict[str, Any]) -> str:
    if share["value"] is None:
        return "nothing, because nothing was lost,"
    if share["ci95"] is None:
        return f"{100 * share['value']:.0f} % of the loss, which may be no loss at all,"
    low, high = share["ci95"]
    return f"{100 * share['value']:.0f} % (95 %: {100 * low:.0f}..{100 * high:.0f}) of the loss"


def _title(results: dict[str, Any]) -> str:
    tag = f" / {results['pretrained']}" if results["pretrained"] else ""
    failed = f", {results['num_failed_images']} failed" if results["num_failed_images"] else ""
    others = f", {results['num_left_out']} of other runs left out" if results["num_left_out"] else ""
    counts = f"{results['num_images']} images{failed}{others}, {results['num_captions']} captions"
    return f"{results['model']}{tag} on {results['dataset']}: {counts}; recall in %"


def _caption(results: dict[str, Any]) -> str:
    environment = results["environment"]
    return (
        f"{environment['device']}, {environment['cpu']}, {environment['cores']} cores, {environment['precision']}, "
        f"torch {environment['torch']}, {environment['date']}; images/s: image tower alone; "
        "cosine: mean, to the unpruned images"
    )
