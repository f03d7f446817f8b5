"""Bring an index up to date without building it again: new shards are added, deleted rows taken out."""

import faiss
import numpy as np

from indexer.building.graph import add_to_graph
from indexer.building.plan import FOLDER, ROWS_FILE, OnStep
from indexer.files import save_index
from indexer.manifest import IndexManifest, check_sizes, hash_files
from indexer.recipes.recipe import Kind, parse_recipe, unwrapped
from indexer.rows.collect import collect
from indexer.rows.mapped import MappedRows
from indexer.settings import IndexSettings
from pipeline.durable.atomic import write_atomically
from pipeline.errors import StoreError
from pipeline.store.view import StoreView

WORTH_A_REBUILD = {"grown": 0.5, "deleted": 0.2}
"""Shares of the rows: lists and codes were trained without the new ones, and the deleted ones stay in the files."""


def can_update(settings: IndexSettings, view: StoreView, manifest: IndexManifest) -> bool:
    """Whether an index can be brought up to date: it is whole, of this encoder, and of the recipe that is asked for.

    FAISS builds NSG graphs in one go, and adds no rows to them.
    """
    try:
        check_sizes(view.store.index_dir, manifest)
    except StoreError:
        return False
    return (
        not settings.rebuild
        and "NSG" not in manifest.recipe
        and settings.recipe in (None, manifest.recipe)
        and manifest.fingerprint == view.record.fingerprint
        and all(_holds(view, ordinal, sha256) for ordinal, sha256 in manifest.parts.items())
    )


def _holds(view: StoreView, ordinal: int, sha256: str) -> bool:
    """Whether the rows of a part are those that were indexed. Compaction changes the file, and removes deleted rows."""
    marker = view.committed.get(ordinal)
    return marker is not None and (marker.sha256 == sha256 or marker.compaction > 0)


def update_index(view: StoreView, manifest: IndexManifest, number: int, on_step: OnStep) -> IndexManifest:
    """Add the shards that an index does not have, and take out the rows that were deleted since.

    Args:
        view: The store.
        manifest: The index, for which `can_update` holds.
        number: The number of the new generation.
        on_step: Called with progress.

    Returns:
        The new manifest, not yet written or proven. The same one if there is nothing to do.
    """
    folder = view.store.index_dir
    new = sorted(set(view.committed) - set(manifest.parts))
    old = MappedRows(folder, manifest.rows)
    num_live = old.num_rows - len(old.positions(view.deleted))
    parts = {ordinal: marker.sha256 for ordinal, marker in sorted(view.committed.items())}
    if not new and num_live == manifest.num_vectors:
        return manifest.model_copy(update={"parts": parts})
    files = manifest.rows
    if new:
        (folder / FOLDER).mkdir(exist_ok=True)
        files = collect(
            view, new, files, folder, folder / FOLDER / ROWS_FILE, lambda done, total: on_step("rows", done, total)
        )
    rows = MappedRows(folder, files)
    recipe = parse_recipe(manifest.recipe, manifest.embedding_dim)
    index = faiss.read_index(str(folder / manifest.index_file))
    for start, vectors in rows.chunks(start=old.num_rows):
        if recipe.kind is Kind.LISTS:
            index.add_with_ids(vectors, np.arange(start, start + len(vectors), dtype=np.int64))
        elif recipe.kind is Kind.GRAPH:
            add_to_graph(index, vectors, seed=start)
        else:
            index.add(vectors)
        on_step("codes", start + len(vectors) - old.num_rows, rows.num_rows - old.num_rows)
    dead = rows.positions(view.deleted)
    if recipe.kind is Kind.LISTS and len(dead):
        unwrapped(index).remove_ids(faiss.IDSelectorBatch(dead))
        index.ntotal = unwrapped(index).ntotal
    path = folder / f"image-{number:05d}.index"
    write_atomically(path, lambda temporary: save_index(index, temporary))
    return manifest.model_copy(
        update={
            "parts": parts,
            "generation": number,
            "rows": files,
            "num_rows": rows.num_rows,
            "num_vectors": rows.num_rows - len(dead),
            "num_grown": manifest.num_grown + rows.num_rows - old.num_rows,
            "files": hash_files(folder, path.name, files),
        }
    )


def rebuild_advice(manifest: IndexManifest) -> str | None:
    """Why a rebuild is worth it, or None."""
    rows = max(1, manifest.num_rows)
    shares = {"grown": manifest.num_grown / rows, "deleted": (manifest.num_rows - manifest.num_vectors) / rows}
    name = next((name for name, share in shares.items() if share > WORTH_A_REBUILD[name]), None)
    if name is None:
        return None
    what = "were added since it was built" if name == "grown" else "are deleted"
    return f"{shares[name]:.0%} of the rows {what}; `clipsieve index --rebuild` makes it smaller and faster"
