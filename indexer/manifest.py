"""The index's record: its parts and their encoder. A stable contract; readers check it against the store.

STORE/index/image.index      FAISS, CPU form
STORE/index/manifest.json    written last
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import StoreError, UnfinishedStore, first_line
from pipeline.store.layout import Store
from pipeline.store.view import StoreView

INDEX_FILE = "image.index"
MANIFEST_FILE = "manifest.json"


class IndexManifest(BaseModel):
    """What an index contains. `parts` maps each shard's ordinal to the hash of the part that was indexed."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    schema_version: int = 1
    index_type: str
    metric: str
    embedding_dim: int
    num_vectors: int
    fingerprint: str
    text_space: str
    image_space: str = Field(alias="image_policy")
    """The key on disk is older than the name."""

    parts: dict[int, str]
    sha256: str
    num_bytes: int
    faiss_version: str
    created_at: str


def index_path(store: Store) -> Path:
    """Path of a store's index file."""
    return store.index_dir / INDEX_FILE


def read_manifest(view: StoreView, partial: bool = False) -> IndexManifest:
    """Read the manifest of a store's index and check it against the store.

    Args:
        view: The store.
        partial: Accept an index that does not cover the store.

    Raises:
        StoreError: If there is no index, or it is damaged or from another encoder.
        UnfinishedStore: If the index is older than the store. The message has the counts.
    """
    path, index = view.store.index_dir / MANIFEST_FILE, index_path(view.store)
    try:
        manifest = IndexManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"the store {view.root} has no index; run `clipsieve index {view.root}`") from None
    except (OSError, ValidationError) as error:
        reason = first_line(error)
        raise StoreError(f"cannot read {path} ({reason}); rebuild the index with `clipsieve index`") from error
    num_bytes = index.stat().st_size if index.exists() else 0
    if num_bytes != manifest.num_bytes:
        raise StoreError(
            f"{index} has {num_bytes} bytes, its manifest says {manifest.num_bytes}; rebuild it with `clipsieve index`"
        )
    if manifest.fingerprint != view.record.fingerprint:
        raise StoreError(
            f"the index of {view.root} is from encoder {manifest.fingerprint}, but the store is from "
            f"{view.record.fingerprint}; rebuild the index with `clipsieve index`"
        )
    in_store = {ordinal: marker.sha256 for ordinal, marker in view.committed.items()}
    if manifest.parts != in_store and not partial:
        raise UnfinishedStore(
            f"the index of {view.root} is older than the store: it covers {len(manifest.parts)} shards and "
            f"{manifest.num_vectors} images, the store has {len(in_store)} shards and "
            f"{sum(marker.num_ok for marker in view.committed.values())} images; run `clipsieve index`, or pass "
            "--partial"
        )
    return manifest
