"""`clipsieve delete`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.delete import DeleteReport
    from pipeline.settings.store import DeleteSettings

SUMMARY = "delete images from a store, by key or because they are gone"
EXAMPLES = "  clipsieve delete store --keys unwanted.txt\n  clipsieve delete store --missing"
SETTINGS = "pipeline.settings.store:DeleteSettings"


def run(settings: "DeleteSettings") -> None:
    """Delete images and report how many."""
    from dataclasses import asdict

    from pipeline.delete import delete
    from query.cli.console import show

    report = delete(settings)
    show(settings, {"store": str(settings.store), **asdict(report)}, lambda: _print_report(report, settings.missing))


def _print_report(report: "DeleteReport", is_missing: bool) -> None:
    if is_missing and not report.num_rows:
        print("no image is gone from its source")
        return
    if is_missing:
        print(f"{report.num_rows} images deleted that are gone from their sources; if one returns, embed adds it again")
    else:
        _print_keys(report)
    print("search skips them from now on and needs no new index; `clipsieve compact` frees the space")


def _print_keys(report: "DeleteReport") -> None:
    before = f"; {report.num_before} keys were already deleted" if report.num_before else ""
    print(f"{report.num_rows} images deleted for {report.num_keys} keys{before}")
