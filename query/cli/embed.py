"""`clipsieve embed`."""

import shlex
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.embed_report import EmbedReport
    from pipeline.settings.embed import EmbedSettings

SUMMARY = "embed images into a store of Parquet shards; resume, or add new images"
EXAMPLES = (
    "  clipsieve embed photos --out store --model ViT-B-16 --pretrained laion2b_s34b_b88k\n"
    "  clipsieve embed photos --out store --model local-dir:/models/clip --keep-ratio 0.5\n"
    "  clipsieve embed photos --out unpruned --policy none\n"
    "  clipsieve embed photos --out store --retry failed\n"
    "  clipsieve embed --config configs/embed-vit-b-16.yaml photos --out store"
)
SETTINGS = "pipeline.settings.embed:EmbedSettings"


def run(settings: "EmbedSettings") -> None:
    """Embed, or with --dry-run estimate what it would take.

    Raises:
        InputError: After the report, if the source as a whole is of no use; see `EmbedReport.refuse_bad_source`.
    """
    from query.cli.console import Lines, note, print_sections, show

    if settings.dry_run:
        from pipeline.dry_run import estimate

        sections = estimate(settings)
        show(settings, sections, lambda: print_sections(sections))
        return
    from pipeline.embedding import embed

    with Lines("embed") as lines:
        report = embed(settings, lambda tick: lines("embed", tick), on_warning=lambda text: note(f"warning: {text}"))
    for warning in report.warnings:
        note(f"warning: {warning}")
    show(settings, _results(report), lambda: _print_report(report, settings))
    report.refuse_bad_source()


def _results(report: "EmbedReport") -> dict[str, Any]:
    names = ("num_images", "num_ok", "failed", "num_ignored_files", "num_embedded", "images_per_second_end_to_end")
    return {
        "store": str(report.store.root),
        "fingerprint": report.record.fingerprint,
        **{name: getattr(report, name) for name in names},
        "left_out": report.left_out.model_dump(),
        "num_gone": report.num_gone,
        "retried": report.retried,
        "start_s": report.start_s,
        "device": report.device,
        "precision": report.precision,
        "calibration": report.calibration,
        "summary": report.summary,
        "warnings": report.warnings,
    }


def _print_report(report: "EmbedReport", settings: "EmbedSettings") -> None:
    failed = f", {_listed(report.failed)}" if report.failed else ""
    print(f"{report.num_ok} of {report.num_images} images embedded{failed}")
    if report.retried:
        print(f"tried again: {_listed(report.retried)}")
    elif settings.retry:
        print(f"no image of this source to try again with --retry {settings.retry}")
    if report.left_out:
        print(f"left out: {report.left_out.describe()}")
    if report.num_gone:
        print(
            f"gone from the source, but still in the store: {report.num_gone} (first {report.first_gone!r}); to "
            f"delete them: clipsieve delete {shlex.quote(str(settings.out))} --missing"
        )
    if report.num_embedded:
        rate = report.images_per_second_end_to_end
        print(f"{rate:.1f} images/s end to end on {report.device}, after {report.start_s:.1f} s to start")
        print(report.summary["sentence"])
        if report.precision:
            print(f"precision {report.precision}")
        if report.calibration:
            print(f"calibration {report.calibration}")
    else:
        print("nothing new to embed")
    if report.of_source.failed:
        print(f"to try failed images again: the same command with {_retry_flags(report.of_source.failed)}")
    print(f"store {report.store.root}: encoder {report.record.encoder.describe()}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _retry_flags(statuses: Collection[str]) -> str:
    higher = {"too_large": "--max-pixels", "timeout": "--image-timeout"}
    flags = [flag for status, flag in higher.items() if status in statuses]
    return f"--retry {','.join(statuses)}" + (f", and a higher {' or '.join(flags)}" if flags else "")
