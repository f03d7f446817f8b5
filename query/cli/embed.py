"""`clipsieve embed`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.embed import EmbedReport
    from pipeline.settings.embed import EmbedSettings

SUMMARY = "embed images into a store of Parquet shards; resume, or add new images"
EXAMPLES = (
    "  clipsieve embed photos --out store --model ViT-B-16 --pretrained laion2b_s34b_b88k\n"
    "  clipsieve embed photos --out store --model local-dir:/models/clip --keep-ratio 0.5\n"
    "  clipsieve embed photos --out unpruned --policy none\n"
    "  clipsieve embed --config configs/embed-vit-b-16.yaml photos --out store"
)
SETTINGS = "pipeline.settings.embed:EmbedSettings"


def run(settings: "EmbedSettings") -> None:
    """Embed, or with --dry-run estimate what it would take."""
    from query.cli.console import Lines, note, print_sections, show

    if settings.dry_run:
        from pipeline.dry_run import estimate

        sections = estimate(settings)
        show(settings, sections, lambda: print_sections(sections))
        return
    from pipeline.embed import embed

    with Lines() as lines:
        report = embed(settings, lambda tick: lines("embed", tick), on_warning=lambda text: note(f"warning: {text}"))
    for warning in report.warnings:
        note(f"warning: {warning}")
    show(settings, _results(report), lambda: _print_report(report))


def _results(report: "EmbedReport") -> dict[str, Any]:
    names = ("num_images", "num_ok", "failed", "num_ignored_files", "num_embedded", "images_per_second_end_to_end")
    return {
        "store": str(report.store.root),
        "fingerprint": report.record.fingerprint,
        **{name: getattr(report, name) for name in names},
        "left_out": report.left_out.model_dump(),
        "start_s": report.start_s,
        "device": report.device,
        "summary": report.summary,
        "warnings": report.warnings,
    }


def _print_report(report: "EmbedReport") -> None:
    failed = ", ".join(f"{count} {status}" for status, count in report.failed.items())
    print(f"{report.num_ok} of {report.num_images} images embedded{f', {failed}' if failed else ''}")
    if report.left_out:
        print(f"left out: {report.left_out.describe()}")
    if report.num_embedded:
        rate = report.images_per_second_end_to_end
        print(f"{rate:.1f} images/s end to end on {report.device}, after {report.start_s:.1f} s to start")
        print(report.summary["sentence"])
    print(f"store {report.store.root}: encoder {report.record.encoder.describe()}")
