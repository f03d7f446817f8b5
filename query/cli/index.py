"""`clipsieve index`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.manifest import IndexManifest
    from indexer.proof.queries import TextQueries
    from indexer.settings import IndexSettings

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
    from query.pictures.recall import refuse_undrawable

    refuse_undrawable(settings.plot)
    if settings.check:
        _check(settings)
    elif settings.dry_run:
        _plan(settings)
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


def _plan(settings: "IndexSettings") -> None:
    from indexer.choose import choose
    from pipeline.store.view import StoreView
    from query.cli.console import Steps, console, note, show, table

    view, warnings = StoreView.open(settings.store, settings.partial), list[str]()
    with Steps("index") as steps:
        choice = choose(settings, view, lambda: _text_queries(settings, warnings), steps.step)
    for warning in warnings:
        note(f"warning: {warning}")
    candidates = choice.plan.candidates if choice.plan else ()

    def print_plan() -> None:
        found = table("candidates")
        for heading in ("recipe", "query ms", "index MB", "memory MB", "build MB", "build s", "open s", ""):
            found.add_column(heading, justify="left" if heading in ("recipe", "") else "right")
        for one in candidates:
            sizes = (f"{size / 1e6:.0f}" for size in (one.index_bytes, one.index_memory, one.build_memory))
            times = f"{one.build_s:.0f}", f"{one.opening_s:.2f}"
            found.add_row(one.recipe, f"{one.query_ms:.2f}", *sizes, *times, one.refused.replace("_", " "))
        console().print(found)
        console().print(choice.reason)

    results = {
        "store": str(settings.store),
        "recipe": choice.recipe.factory,
        "reason": choice.reason,
        "candidates": [
            {
                "recipe": one.recipe,
                "query_ms": one.query_ms,
                "index_bytes": one.index_bytes,
                "index_memory": one.index_memory,
                "build_memory": one.build_memory,
                "build_s": one.build_s,
                "opening_s": one.opening_s,
                "opening_memory": one.opening_memory,
                "refused": one.refused,
            }
            for one in candidates
        ],
    }
    show(settings, results, print_plan)


def _text_queries(settings: "IndexSettings", warnings: list[str]) -> "TextQueries | str":
    from query.proof.own_process import text_queries_apart

    queries, found = text_queries_apart(settings.store, settings.queries, settings.partial)
    warnings += found
    return queries


def _build(settings: "IndexSettings") -> None:
    from indexer.build import build_index
    from query.cli.console import Steps, note

    warnings: list[str] = []

    with Steps("index") as steps:
        report = build_index(settings, lambda view: _text_queries(settings, warnings), steps.step)
    for text in [*(f"warning: {warning}" for warning in warnings), f"the index was {report.action}", *report.notes]:
        note(text)
    _show(settings, report.manifest, report.action)
    report.refuse_short(settings)


def _show(settings: "IndexSettings", manifest: "IndexManifest", action: str) -> None:
    from query.cli.console import show
    from query.pictures.recall import write_recall_plot

    results: dict[str, Any] = {"store": str(settings.store), "action": action}
    results |= manifest.model_dump(mode="json", exclude={"parts", "rows", "files"})
    results["num_bytes"] = manifest.num_bytes
    write = (lambda: write_recall_plot(settings.plot, manifest)) if settings.plot else None
    show(settings, results, lambda: print_index(manifest), write)


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
    from pipeline.store.view import StoreView
    from query.cli.console import Steps, note, show

    view = StoreView.open(settings.store, settings.partial)
    with Steps("check") as steps:
        report = check_index(view, steps.step)
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
