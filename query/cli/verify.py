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
        StoreError: If the store is not whole, or no row could be embedded again.
    """
    from dataclasses import asdict

    from pipeline.errors import StoreError
    from pipeline.verify import verify
    from query.cli.console import Lines, show

    with Lines("verify") as lines:
        report = verify(settings, lines)
    show(settings, asdict(report), lambda: print_verification(report))
    if report.findings:
        raise StoreError(f"the store is not whole, {len(report.findings)} findings, first: {report.findings[0]}")
    resample = report.resample
    if resample and not resample.num_compared:
        raise StoreError(f"nothing could be compared: {_why_nothing(resample)}")


def print_verification(report: "VerifyReport") -> None:
    """Print what a store holds, and everything that is wrong with it."""
    from pipeline.errors import on_one_line
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
        print(f"left over from a killed job, harmless: {on_one_line(path)}")
    for finding in report.findings:
        print(f"not whole: {on_one_line(finding)}")


def _why_nothing(resample: "Resample") -> str:
    if not resample.changed:
        return "the store has no row with an embedding; embed images that can be decoded"
    return (
        f"the sources of all {len(resample.changed)} chosen rows are gone or have changed, first "
        f"{resample.changed[0]}; bring them back, or verify without --resample"
    )


def _resampled(resample: "Resample") -> dict[str, str]:
    equal = "nothing was compared"
    if resample.min_cosine is not None:
        lowest = f"lowest cosine {resample.min_cosine:.6f}"
        equal = f"{resample.num_equal} of {resample.num_compared} bit-identical, {lowest}, on {resample.device}"
    changed = f"{len(resample.changed)}, first {resample.changed[0]}" if resample.changed else "none"
    return {"embedded again": equal, "sources that changed": changed}
