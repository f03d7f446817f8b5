"""`clipsieve compact`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.settings.store import CompactSettings

SUMMARY = "remove deleted and replaced rows from a store's parts"
EXAMPLES = "  clipsieve compact store && clipsieve index store"
SETTINGS = "pipeline.settings.store:CompactSettings"


def run(settings: "CompactSettings") -> None:
    """Compact a store and report what was freed."""
    from dataclasses import asdict

    from pipeline.compact import compact
    from query.cli.console import show

    report = compact(settings)

    def print_report() -> None:
        print(f"{report.num_rows} rows removed from {report.num_parts} parts, {report.num_bytes / 1e6:.1f} MB freed")
        if report.num_parts:
            print(f"an older index no longer matches the parts: run `clipsieve index {settings.store}`")

    show(settings, {"store": str(settings.store), **asdict(report)}, print_report)
