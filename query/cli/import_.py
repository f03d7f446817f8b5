"""`clipsieve import`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.imported.import_store import ImportReport
    from pipeline.settings.imports import ImportSettings

SUMMARY = "make a store of embeddings that exist already"
EXAMPLES = (
    "  clipsieve import clip-retrieval-output --out store --model ViT-B-32 --pretrained laion2b_s34b_b79k\n"
    "  clipsieve import data --out store --model hf-hub:timm/ViT-B-16-SigLIP --key-column url --columns license\n"
    "  clipsieve import vectors.npy --keys names.txt --out store --model local-dir:/models/clip"
)
SETTINGS = "pipeline.settings.imports:ImportSettings"


def run(settings: "ImportSettings") -> None:
    """Import and report the counts."""
    from pipeline.imported.import_store import import_store
    from query.cli.console import Lines, note, show

    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        note(f"warning: {text}")

    with Lines("import") as lines:
        report = import_store(settings, lambda tick: lines("import", tick), warn)
    show(settings, _results(report, warnings), lambda: _print_report(report))


def _results(report: "ImportReport", warnings: list[str]) -> dict[str, Any]:
    record = report.view.record
    names = ("num_images", "num_ok", "failed", "num_normalised", "num_imported", "key_column")
    return {
        "store": str(report.view.root),
        "fingerprint": record.fingerprint,
        "embedding_dim": record.encoder.embedding_dim,
        "precision": record.encoder.precision,
        **{name: getattr(report, name) for name in names},
        "left_out": report.left_out.model_dump(),
        "warnings": warnings,
    }


def _print_report(report: "ImportReport") -> None:
    failed = "".join(f", {count} {status}" for status, count in report.failed.items())
    print(f"{report.num_ok} of {report.num_images} rows imported{failed}")
    if report.num_normalised:
        print(f"{report.num_normalised} rows were normalised")
    if report.left_out:
        print(f"left out: {report.left_out.describe()}")
    if not report.num_imported:
        print("nothing new to import")
    record = report.view.record
    print(f"store {report.view.root}: {record.encoder.embedding_dim} values, {record.encoder.describe()}")
