"""`clipsieve index`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.manifest import IndexManifest
    from indexer.proof.queries import TextQueries
    from indexer.settings import IndexSettings
    from pipeline.store.view import StoreView

SUMMARY = "build a FAISS index over a store, or bring it up to date"
EXAMPLES = (
    "  clipsieve index store\n"
    "  clipsieve index store --max-index-memory 600M --min-recall 0.98\n"
    "  clipsieve index store --show --plot recall.png\n"
    "  clipsieve index store --check"
)
SETTINGS = "indexer.settings:IndexSettings"


def run(settings: "IndexSettings") -> None:
    """Build the index and report what was done; or show or check the one that exists."""
    if settings.check:
        _check(settings)
    elif settings.show:
        from indexer.manifest import IndexManifest, read_manifest
        from pipeline.errors import StoreError
        from pipeline.store.view import StoreView

        view = StoreView.open(settings.store, settings.partial)
        manifest = read_manifest(view)
        if not isinstance(manifest, IndexManifest):
            raise StoreError(
                f"the index of {view.root} has an earlier format, which has no curve; run `clipsieve index {view.root}`"
            )
        _show(settings, manifest, "shown")
    else:
        _build(settings)


def _build(settings: "IndexSettings") -> None:
    import time

    from indexer.build import build_index
    from pipeline.monitor.progress import Tick
    from query.cli.console import Lines, note

    started, warnings = time.perf_counter(), []

    def text_queries(view: "StoreView") -> "TextQueries | str":
        from query.proof.text_queries import text_queries  # brings torch, which exact indexes do not need

        return text_queries(view, settings.queries, on_warning=warnings.append)

    with Lines("index") as lines:
        report = build_index(
            settings,
            text_queries,
            lambda step, num_done, num_total: lines(
                step, Tick(num_done, num_total, 0, num_done / (time.perf_counter() - started))
            ),
        )
    for text in [*(f"warning: {warning}" for warning in warnings), f"the index was {report.action}", *report.notes]:
        note(text)
    _show(settings, report.manifest, report.action)
    report.refuse_short(settings)


def _show(settings: "IndexSettings", manifest: "IndexManifest", action: str) -> None:
    from query.cli.console import show

    results: dict[str, Any] = {"store": str(settings.store), "action": action}
    results |= manifest.model_dump(mode="json", exclude={"parts", "segments", "files"})
    results["num_bytes"] = manifest.num_bytes
    show(settings, results, lambda: print_index(manifest))


def print_index(manifest: "IndexManifest") -> None:
    """Print an index in a few lines, and its curve if it has one."""
    from query.cli.console import console, table

    to, proof = console(), manifest.proof
    for line in manifest.describe():
        to.print(line)
    if not proof.text:
        return
    found = table("text queries" + (", image queries" if proof.image else ""))
    headings = ("effort", "recall@1", "recall@10", "95 %", "5th pct.", "recall@100", "p50 ms", "p99 ms", "queries/s")
    for heading in (*headings, "image recall@10"):
        found.add_column(heading, justify="right")
    for text, image in zip(proof.text, proof.image, strict=True):
        chosen = "*" if text.point == manifest.point else ""
        ten = text.recall_at_10
        found.add_row(
            f"{chosen}{text.point.effort}",
            f"{text.recall_at_1.mean:.3f}",
            f"{ten.mean:.3f}",
            f"{ten.low:.3f}-{ten.high:.3f}",
            f"{text.recall_at_10_p5:.2f}",
            f"{text.recall_at_100.mean:.3f}",
            f"{text.p50_ms:.2f}",
            f"{text.p99_ms:.2f}",
            f"{text.queries_per_second:.0f}",
            f"{image.recall_at_10.mean:.3f}",
        )
    to.print(found)


def _check(settings: "IndexSettings") -> None:
    from dataclasses import asdict

    from indexer.check import check_index
    from pipeline.errors import StoreError
    from pipeline.monitor.progress import Tick
    from pipeline.store.view import StoreView
    from query.cli.console import Lines, note, show

    view = StoreView.open(settings.store, settings.partial)
    with Lines("check") as lines:
        report = check_index(view, lambda step, num_done, num_total: lines(step, Tick(num_done, num_total, 0, 0.0)))
    for finding in report.findings:
        note(finding)
    sound = f"{report.num_blocks} blocks and {report.num_rows} rows"
    show(
        settings,
        {"store": str(settings.store), **asdict(report)},
        lambda: print(
            f"{sound} checked: " + ("no damage" if not report.findings else f"{len(report.findings)} faults")
        ),
    )
    if report.findings:
        raise StoreError(f"the index of {settings.store} has {len(report.findings)} faults; see above")
