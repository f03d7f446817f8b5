"""`clipsieve adapt`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.adapt import AdaptReport
    from pipeline.settings.adapt import AdaptSettings

SUMMARY = "train a low-rank adapter that recovers the recall lost to pruning"
EXAMPLES = (
    "  clipsieve adapt --out scenes-adapter\n"
    "  clipsieve adapt --model ViT-B-16 --pretrained laion2b_s34b_b88k --policy fast \\\n"
    "      --data photos --captions captions.tsv --out adapter\n"
    "  clipsieve adapt --model local-dir:/models/clip --policy fast --data photos --label-free --out adapter\n"
    "  clipsieve adapt --model local-dir:/models/clip --from adapter --export clip-adapted"
)
SETTINGS = "pipeline.settings.adapt:AdaptSettings"


def run(settings: "AdaptSettings") -> None:
    """Train an adapter, or export a finished one."""
    from pipeline.adapt import adapt, export
    from query.cli.console import Lines, note, show

    results: dict[str, Any] = {"export": str(settings.export.absolute()) if settings.export else None}
    report = None
    if settings.adapter:
        results |= {"adapter": settings.adapter}
    else:
        with Lines("adapt") as lines:
            report = adapt(settings, lines, lambda entry: note(_line(entry)))
        for warning in report.warnings:
            note(f"warning: {warning}")
        results |= {"adapter": str(report.adapter), "was_there": report.was_there, "results": report.results}
        results |= {"warnings": report.warnings}

    def write_model() -> None:
        export(settings.model_source(), results["adapter"], settings.export)
        note(f"open_clip model: local-dir:{settings.export.absolute()}")

    show(settings, results, lambda: print_adapter(report) if report else None, write_model if settings.export else None)


def _line(entry: dict[str, Any]) -> str:
    """One line of the training log."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in entry.items() if name not in ("step", "held_out"))
    held_out = ", ".join(f"{_heading(name)} {_measure(name, value)}" for name, value in entry["held_out"].items())
    return f"step {entry['step']}: {losses}; held-out {held_out}"


def print_adapter(report: "AdaptReport") -> None:
    """Print the recall on an adapter's held-out images under each policy, before and after training."""
    from query.cli.console import console, table

    results = report.results
    measures = list(next(iter(results["after"].values())))
    found = table(f"{report.adapter}, on held-out images, before -> after")
    found.add_column("policy")
    for measure in measures:
        found.add_column(_heading(measure), justify="right")
    for name, after in results["after"].items():
        before = results["before"][name]
        found.add_row(name, *[f"{_measure(key, before[key])} -> {_measure(key, after[key])}" for key in measures])
    console().print(found)
    if report.was_there:
        console().print("the adapter was already finished; nothing was trained")


def _heading(measure: str) -> str:
    return measure.replace("image_retrieval_recall", "t2i R")


def _measure(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "cosine" else f"{100 * value:.1f}"
