"""`clipsieve compact`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.settings.store import CompactSettings

SUMMARY = "take deleted and replaced rows out of a store's parts"
EXAMPLES = "  clipsieve compact store && clipsieve index store"
SETTINGS = "pipeline.settings.store:CompactSettings"


def run(settings: "CompactSettings") -> None:
    """Compact a store, and say what that freed."""
    from dataclasses import asdict

    from pipeline.compact import compact
    from query.cli.console import show

    report = compact(settings)

    def print_report() -> None:
        print(f"{report.num_rows} rows taken out of {report.num_parts} parts, {report.num_bytes / 1e6:.1f} MB freed")
        if report.num_parts:
            print(f"an older index no longer fits the parts: run `clipsieve index {settings.store}`")

    show(settings, {"store": str(settings.store), **asdict(report)}, print_report)
