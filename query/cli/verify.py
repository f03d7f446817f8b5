"""`clipsieve verify`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.resample import Resample
    from pipeline.settings.store import VerifySettings
    from pipeline.verify import VerifyReport

SUMMARY = "prove that a store is whole, byte by byte and image by image"
EXAMPLES = "  clipsieve verify store\n  clipsieve verify store --resample 100\n  clipsieve verify store --json"
SETTINGS = "pipeline.settings.store:VerifySettings"


def run(settings: "VerifySettings") -> None:
    """Verify a store and show what it holds.

    Raises:
        StoreError: If the store is not whole.
    """
    from dataclasses import asdict

    from pipeline.errors import StoreError
    from pipeline.verify import verify
    from query.cli.console import Lines, show

    with Lines() as lines:
        report = verify(settings, lambda tick: lines("verify", tick))
    show(settings, asdict(report), lambda: print_verification(report))
    if report.findings:
        raise StoreError(f"the store is not whole, {len(report.findings)} findings, first: {report.findings[0]}")


def print_verification(report: "VerifyReport") -> None:
    """Print what a store holds, and everything that is wrong with it."""
    from query.cli.console import print_sections

    failed = "".join(f", {count} {status}" for status, count in sorted(report.failed.items()))
    facts = {
        "whole shards": f"{report.num_whole} of {report.num_shards}, {report.num_bytes / 1e6:.1f} MB",
        "rows": f"{report.num_images}: {report.num_ok} ok{failed}",
        "deleted, gone, replaced": f"{report.num_tombstones}, {report.num_removed} of them removed from their parts",
    }
    if report.resample:
        facts |= _resampled(report.resample)
    print_sections({"store": {"path": report.store, **facts}})
    for path in report.leftovers:
        print(f"left over from a killed job, harmless: {path}")
    for finding in report.findings:
        print(f"not whole: {finding}")


def _resampled(resample: "Resample") -> dict[str, str]:
    lowest = f"lowest cosine {resample.min_cosine:.6f}"
    equal = f"{resample.num_equal} of {resample.num_compared} bit-identical, {lowest}, on {resample.device}"
    changed = f"{len(resample.changed)}, first {resample.changed[0]}" if resample.changed else "none"
    return {"embedded again": equal, "sources that changed": changed}
