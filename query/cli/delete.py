"""`clipsieve delete`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.delete import DeleteReport
    from pipeline.settings.store import DeleteSettings

SUMMARY = "delete images from a store by their keys"
EXAMPLES = "  clipsieve delete store --keys unwanted.txt"
SETTINGS = "pipeline.settings.store:DeleteSettings"


def run(settings: "DeleteSettings") -> None:
    """Delete, and say how many images that were."""
    from dataclasses import asdict

    from pipeline.delete import delete
    from query.cli.console import show

    report = delete(settings)
    show(settings, {"store": str(settings.store), **asdict(report)}, lambda: _print_report(report))


def _print_report(report: "DeleteReport") -> None:
    before = f"; {report.num_before} of the keys were deleted before" if report.num_before else ""
    print(f"{report.num_rows} images of {report.num_keys} keys deleted{before}")
    print("search leaves them out from now on, without a new index; `clipsieve compact` frees the space")
