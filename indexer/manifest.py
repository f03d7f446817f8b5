"""The index's record: its rows, its recipe, what was proven, and a hash of every block. Readers check it first.

    STORE/index/manifest.json           sealed, written last: replacing it is the switch to a new index
    STORE/index/image-00000.index       the FAISS index over positions, CPU form
    STORE/index/rows-00000.*            vectors, ids and metadata (see `indexer.rows`)
    STORE/index/building/               a build that is under way, or was killed

Up to schema version 1, the index was one file, image.index, and the manifest was not sealed. See `indexer.earlier`.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexer.proof.curve import Measured
from indexer.recipes.point import OperatingPoint
from indexer.rows.record import RowFiles
from pipeline.durable.seal import unsealed_json, write_sealed_json
from pipeline.errors import StoreError, UnfinishedStore, first_line
from pipeline.store.view import StoreView

MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION = 2
BLOCK_BYTES = 16 << 20


class NewerIndex(StoreError):
    """The index was written by a newer version of clipsieve."""


class IndexFile(BaseModel):
    """A file of an index: its size, and the SHA-256 of each block of `BLOCK_BYTES`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_bytes: int
    blocks: tuple[str, ...]


class Proof(BaseModel):
    """What was measured against exact search, and whether it is enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_proven: bool
    reason: str
    """Why it is proven or not, for people."""
    min_recall: float | None = None
    queries: str = ""
    """Where the text queries come from, and how many there are."""
    queries_sha256: str = ""
    text: tuple[Measured, ...] = ()
    """The curve of text queries, by effort."""
    image: tuple[Measured, ...] = ()
    """The curve of rows of the index as queries; the row itself does not count."""

    def at(self, point: OperatingPoint) -> Measured | None:
        """What text queries found at a point."""
        return next((measured for measured in self.text if measured.point == point), None)


class IndexManifest(BaseModel):
    """What an index contains. `parts` maps each shard's ordinal to the hash of the part that was indexed."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    schema_version: int = SCHEMA_VERSION
    recipe: str
    kind: str
    metric: str = "inner_product"
    embedding_dim: int
    num_vectors: int
    """Rows that can be found."""
    num_rows: int
    """Positions, those of rows that were deleted since among them."""
    num_grown: int = 0
    """Rows added since the last whole build."""
    fingerprint: str
    text_space: str
    image_space: str = Field(alias="image_policy")
    """The key on disk is older than the name."""

    parts: dict[int, str]
    generation: int
    rows: RowFiles
    files: dict[str, IndexFile]
    point: OperatingPoint
    proof: Proof
    reason: str
    """Why this recipe was chosen."""
    seconds: dict[str, float]
    """Of each step of the build."""
    environment: dict[str, Any]
    """FAISS version, SIMD level, threads: what the bytes of the index depend on besides its rows."""
    created_at: str

    @property
    def index_file(self) -> str:
        """Name of the FAISS index file."""
        return f"image-{self.generation:05d}.index"

    @property
    def num_bytes(self) -> int:
        """Size of the FAISS index file."""
        return self.files[self.index_file].num_bytes

    def describe(self) -> list[str]:
        """What it is, why, and what was proven, for people."""
        size = sum(file.num_bytes for file in self.files.values())
        lines = [
            f"{self.num_vectors} vectors of {self.embedding_dim} dimensions, {self.recipe}: "
            f"{self.num_bytes / 1e6:.1f} MB, {size / 1e6:.1f} MB with vectors and metadata"
        ]
        lines += [f"why: {self.reason}"] if self.reason else []
        lines += [f"{'proven' if self.proof.is_proven else 'not proven'}: {self.proof.reason}"]
        lines += [f"queries: {self.proof.queries}"] if self.proof.queries else []
        steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.seconds.items())
        return lines + ([f"time: {steps}"] if steps else [])

    def write(self, folder: Path) -> None:
        """Write it, which makes this the index that is searched."""
        write_sealed_json(folder / MANIFEST_FILE, self.model_dump(mode="json"))


def read_manifest(view: StoreView) -> IndexManifest | dict[str, Any]:
    """Read the manifest of a store's index, of this version or (as a dict) of an earlier one.

    Raises:
        NewerIndex: If a newer version of clipsieve wrote it.
        StoreError: If there is no index, or its manifest is damaged.
    """
    path = view.store.index_dir / MANIFEST_FILE
    try:
        data = path.read_bytes()
        version = json.loads(data)["schema_version"]
        if version == 1:
            return json.loads(data)
        if version != SCHEMA_VERSION:
            raise NewerIndex(
                f"{path} has schema version {version}, but this version of clipsieve reads {SCHEMA_VERSION}; use the "
                "version that wrote it, or run `clipsieve index --rebuild`"
            )
        return IndexManifest.model_validate(unsealed_json(data))
    except FileNotFoundError:
        raise StoreError(f"the store {view.root} has no index; run `clipsieve index {view.root}`") from None
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        reason = first_line(error)
        raise StoreError(f"cannot read {path} ({reason}); run `clipsieve index --rebuild {view.root}`") from error


def check_covers(view: StoreView, parts: dict[int, str], num_vectors: int, fingerprint: str, partial: bool) -> None:
    """Check that an index is of this store and encoder, and of all its shards.

    Raises:
        StoreError: If it is from another encoder.
        UnfinishedStore: If the index is older than the store and not `partial`. The message has the counts.
    """
    if fingerprint != view.record.fingerprint:
        raise StoreError(
            f"the index of {view.root} is from encoder {fingerprint}, but the store is from "
            f"{view.record.fingerprint}; run `clipsieve index --rebuild {view.root}`"
        )
    in_store = {ordinal: marker.sha256 for ordinal, marker in view.committed.items()}
    if parts != in_store and not partial:
        raise UnfinishedStore(
            f"the index of {view.root} is older than the store: it covers {len(parts)} shards and {num_vectors} "
            f"images, the store has {len(in_store)} shards and "
            f"{sum(marker.num_ok for marker in view.committed.values())} images; run `clipsieve index`, or pass "
            "--partial"
        )


def check_sizes(folder: Path, manifest: IndexManifest) -> None:
    """Check that each file of an index is there and has its size.

    Raises:
        StoreError: If one is not.
    """
    for name, file in manifest.files.items():
        path = folder / name
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError:
            num_bytes = 0
        # more is left from an update that was stopped, and is cut off by the next
        if num_bytes < file.num_bytes or (num_bytes > file.num_bytes and name == manifest.index_file):
            raise StoreError(
                f"{path} has {num_bytes} bytes, its manifest says {file.num_bytes}; rebuild the index with "
                "`clipsieve index --rebuild`"
            )


def hash_file(path: Path, num_bytes: int | None = None) -> IndexFile:
    """Hash a file, or the first of its bytes, block by block."""
    num_bytes = path.stat().st_size if num_bytes is None else num_bytes
    return IndexFile(num_bytes=num_bytes, blocks=tuple(hash_blocks(path, num_bytes)))


def hash_files(folder: Path, index_file: str, rows: RowFiles) -> dict[str, IndexFile]:
    """Hash the files of an index."""
    sizes = dict(zip(rows.names, rows.sizes, strict=True))
    return {name: hash_file(folder / name, sizes.get(name)) for name in (index_file, *rows.names)}


def hash_blocks(path: Path, num_bytes: int) -> Iterator[str]:
    """Yield the SHA-256 of each block of the first bytes of a file."""
    with path.open("rb") as file:
        while block := file.read(min(BLOCK_BYTES, num_bytes - file.tell())):
            yield hashlib.sha256(block).hexdigest()
