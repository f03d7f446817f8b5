"""`clipsieve index --check`: whether an index is undamaged, has the store's rows, and answers as it did."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from indexer.building.plan import OnStep, sample_positions
from indexer.manifest import IndexManifest, check_covers, check_sizes, hash_blocks, read_manifest
from indexer.opening import open_manifest
from indexer.proof.curve import TIED
from indexer.proof.truth import exact_search
from indexer.rows.collect import live_batches
from indexer.searcher import IndexSearcher
from pipeline.errors import StoreError
from pipeline.store.parts import ok_ids
from pipeline.store.view import StoreView

SAMPLE = 200
SAMPLE_PARTS = 5
MIN_SAMPLE_RECALL = 0.8
"""Of rows as queries: far below any index that was proven, far above one whose codes do not fit its rows."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `--check` looked at, and what is wrong."""

    num_blocks: int
    num_rows: int
    sample_recall: float | None
    findings: list[str]


def check_index(view: StoreView, on_step: OnStep = lambda step, num_done, num_total: None) -> CheckReport:
    """Check the index of a store. Damage is a finding, not an error.

    Raises:
        StoreError: If there is no index, or it is of an earlier format.
    """
    manifest = read_manifest(view)
    if not isinstance(manifest, IndexManifest):
        raise StoreError(
            f"the index of {view.root} has an earlier format, without hashes; run `clipsieve index {view.root}` first"
        )
    findings = list(_about_files(view, manifest, on_step))
    recall = None
    if not findings:
        searcher = open_manifest(view, manifest, "cpu")
        findings = list(_about_rows(view, manifest, searcher))
        recall = _sample_recall(searcher)
        if recall is not None and recall < MIN_SAMPLE_RECALL:
            findings.append(
                f"{SAMPLE} of its rows as queries find {recall:.0%} of their 10 nearest rows; run `clipsieve index "
                "--rebuild`"
            )
        on_step("answers", 1, 1)
    num_blocks = sum(len(file.blocks) for file in manifest.files.values())
    return CheckReport(num_blocks, manifest.num_rows, recall, findings)


def _about_files(view: StoreView, manifest: IndexManifest, on_step: OnStep) -> Iterator[str]:
    try:
        check_covers(view, manifest.parts, manifest.num_vectors, manifest.fingerprint, partial=False)
    except StoreError as error:
        yield str(error)
    try:
        check_sizes(view.store.index_dir, manifest)
    except StoreError as error:
        yield str(error)
        return
    done, total = 0, sum(len(file.blocks) for file in manifest.files.values())
    for name, file in manifest.files.items():
        for number, (found, expected) in enumerate(
            zip(hash_blocks(view.store.index_dir / name, file.num_bytes), file.blocks, strict=True)
        ):
            if found != expected:
                yield f"{view.store.index_dir / name}: block {number} is damaged; run `clipsieve index --rebuild`"
            done += 1
            on_step("blocks", done, total)


def _about_rows(view: StoreView, manifest: IndexManifest, searcher: IndexSearcher) -> Iterator[str]:
    """Ids against the store, and the vectors of a few parts."""
    rows = searcher.rows
    expected = [ok_ids(table) for marker, table in view.parts(["id", "status"]) if marker.ordinal in manifest.parts]
    expected = np.setdiff1d(np.concatenate(expected or [np.empty(0, np.int64)]), view.deleted)
    found = rows.ids(np.setdiff1d(np.arange(rows.num_rows), searcher.dead))
    if not np.array_equal(np.sort(found), expected):
        missing, foreign = len(np.setdiff1d(expected, found)), len(np.setdiff1d(found, expected))
        yield f"{missing} rows of the store are not in the index, {foreign} of its rows are not in the store"
        return
    ordinals = np.array(sorted(manifest.parts))
    for ordinal in ordinals[sample_positions(len(ordinals), SAMPLE_PARTS, seed=1)]:
        for ids, vectors, _ in live_batches(view, view.committed[int(ordinal)]):
            if not np.allclose(rows.vectors(rows.positions(ids)), vectors, atol=1e-3):
                yield f"the vectors of shard {ordinal} are not those of the store; run `clipsieve index --rebuild`"
                break


def _sample_recall(searcher: IndexSearcher) -> float | None:
    """The share of the 10 nearest rows that a sample of rows finds; a tie counts. None without rows."""
    if not searcher.num_rows:
        return None
    live = np.setdiff1d(np.arange(searcher.rows.num_rows), searcher.dead)
    queries_QE = searcher.rows.vectors(live[sample_positions(len(live), SAMPLE, seed=1)])
    is_dead = np.zeros(searcher.rows.num_rows, bool)
    is_dead[searcher.dead] = True
    k = min(10, len(live))
    true_scores, _ = exact_search(searcher.rows, queries_QE, k, is_dead)
    scores, _ = searcher.search(queries_QE, k)
    return float((scores >= true_scores[:, -1:] - TIED).mean())
