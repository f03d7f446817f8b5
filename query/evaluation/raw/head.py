"""What identifies a raw file, and the one way to write and read one.

A raw file is Parquet. Its head is JSON in the file's metadata, under the same key as in the parts of a store.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipeline.durable.atomic import write_atomically
from pipeline.errors import StoreError, first_line, on_one_line
from query.evaluation.record import SCHEMA_VERSION

METADATA_KEY = b"clipsieve"
_ADVICE = "delete it, then run the command that wrote it again; what is complete is kept"
_NAMED = {
    "kind": "kind",
    "condition": "condition",
    "data": "data set",
    "data_sha256": "split",
    "fingerprint": "encoder",
    "environment_key": "environment",
    "settings": "set of settings",
}
"""What each field of a head is, for messages; the first that differs is named."""


class RawHead(BaseModel):
    """What a raw file was measured on. A file with another head is another file's place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    kind: Literal["ranks", "images", "round", "mixed", "data"]
    condition: str | None = None
    """Key of the condition; None where a file is of no single one."""
    fingerprint: str | None = None
    """Of its encoder."""
    data: str | None = None
    """Name of the data set; None where none is involved."""
    data_sha256: str | None = None
    """Of its split."""
    environment_key: str | None = None
    settings: dict[str, Any] = {}
    """What else decides the values, such as epsilon: plain values of JSON."""


def holds(path: Path, head: RawHead) -> bool:
    """Whether a file is there, complete and of this head. Reads only its footer."""
    try:
        return _head_of(path, pq.read_schema(path)) == head
    except (OSError, pa.ArrowException, StoreError):
        return False


def write_raw(path: Path, table: pa.Table, head: RawHead, floats: Sequence[str] = ()) -> None:
    """Write a raw file whole or not at all; its folder is created.

    Args:
        path: Where it appears.
        table: Its rows.
        head: What they were measured on.
        floats: Paths of columns of floats, whose bytes are stored by place: they compress better so.

    Raises:
        StoreError: If it cannot be written.
    """
    table = table.replace_schema_metadata({METADATA_KEY: head.model_dump_json().encode()})

    def write(temporary: Path) -> None:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=False,
            use_byte_stream_split=list(floats),
            write_page_checksum=True,
        )

    write_atomically(path, write)


def read_raw(path: Path, expected: RawHead | None = None) -> tuple[pa.Table, RawHead]:
    """Read a raw file.

    Args:
        path: The file.
        expected: The head that it must have; None takes any of this schema version.

    Raises:
        StoreError: If it is missing, damaged, of another schema version or of another head. The message names the file.
    """
    try:
        head = _head_of(path, pq.read_schema(path))
        if expected is not None:
            _refuse_other(path, head, expected)
        return pq.read_table(path, partitioning=None, page_checksum_verification=True), head
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing; run the command that writes it; what is complete is kept") from error
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} is damaged ({on_one_line(first_line(error))}); {_ADVICE}") from error


def _head_of(path: Path, schema: pa.Schema) -> RawHead:
    try:
        found = json.loads((schema.metadata or {})[METADATA_KEY])
        version = found["schema_version"]
        if version == SCHEMA_VERSION:
            return RawHead.model_validate(found)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: it has no head that can be read; {_ADVICE}") from error
    raise StoreError(
        f"{path} has schema version {version}, this version of clipsieve reads {SCHEMA_VERSION}; read it with the "
        f"version that wrote it, or {_ADVICE}"
    )


def _refuse_other(path: Path, head: RawHead, expected: RawHead) -> None:
    for name, what in _NAMED.items():
        found, wanted = getattr(head, name), getattr(expected, name)
        if found != wanted:
            raise StoreError(f"{path} was measured with another {what}: {found}, expected {wanted}; {_ADVICE}")
