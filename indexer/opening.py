"""Open the index of a store, of this format or an earlier one."""

from typing import Literal

from indexer.earlier import INDEX_FILE, EarlierSearcher, refuse_damaged
from indexer.manifest import IndexManifest, check_covers, check_sizes, read_manifest
from indexer.recipes.recipe import parse_recipe
from indexer.rows.mapped import MappedRows
from indexer.searcher import IndexSearcher
from pipeline.errors import ConfigError, StoreError
from pipeline.store.view import StoreView


def open_index(
    view: StoreView, partial: bool = False, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> IndexSearcher | EarlierSearcher:
    """Open a store's index for searching.

    Args:
        view: The store.
        partial: Accept an index that does not cover the store.
        device: Where to search.

    Raises:
        ConfigError: If a GPU is asked for and cannot be used.
        StoreError: If there is no index, or it is damaged or from another encoder.
        UnfinishedStore: If the index is older than the store. The message has the counts.
    """
    for attempt in range(3):
        manifest = read_manifest(view)
        try:
            if not isinstance(manifest, IndexManifest):
                return _open_earlier(view, manifest, partial, device)
            check_covers(view, manifest.parts, manifest.num_vectors, manifest.fingerprint, partial)
            check_sizes(view.store.index_dir, manifest)
            return open_manifest(view, manifest, device)
        except StoreError:
            # a new index may just have taken the place of the one whose manifest was read
            if attempt == 2 or read_manifest(view) == manifest:
                raise
    raise AssertionError("the loop returns or raises")


def open_manifest(
    view: StoreView, manifest: IndexManifest, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> IndexSearcher:
    """Open the index that a manifest describes."""
    folder = view.store.index_dir
    return IndexSearcher(
        folder / manifest.index_file,
        parse_recipe(manifest.recipe, manifest.embedding_dim),
        MappedRows(folder, manifest.rows),
        manifest.point,
        view.deleted,
        device,
        None if manifest.proof.is_proven else f"the recall of this index is not proven: {manifest.proof.reason}",
    )


def _open_earlier(view: StoreView, manifest: dict, partial: bool, device: str) -> EarlierSearcher:
    if device == "cuda":
        raise ConfigError(
            f"device = 'cuda': the index of {view.root} has an earlier format; run `clipsieve index {view.root}` first"
        )
    path = view.store.index_dir / INDEX_FILE
    try:
        parts = {int(ordinal): sha256 for ordinal, sha256 in manifest["parts"].items()}
        check_covers(view, parts, manifest["num_vectors"], manifest["fingerprint"], partial)
        refuse_damaged(path, manifest)
    except (KeyError, ValueError, AttributeError) as error:
        raise StoreError(f"the manifest of {path} is damaged; run `clipsieve index {view.root}`") from error
    return EarlierSearcher(path, view)
