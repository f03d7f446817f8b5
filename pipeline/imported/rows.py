"""Rows of a file of embeddings: whose they are, and the embeddings, read in order."""

from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pyarrow as pa

from pipeline.imported.columns import Columns
from pipeline.imported.files import EmbeddingFile
from pipeline.imported.matrix import RawEmbeddings, column_rows, matrix_rows
from pipeline.imported.tables import KeyReader, TableReader
from pipeline.source.access.credentials import bare_entry
from pipeline.source.access.naming import folder_of, join_uri
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.arrow_types import values_of
from pipeline.source.formats.folder import has_image_suffix
from pipeline.source.formats.parquet import as_carried, cell_uri
from pipeline.source.formats.text import caption_of, column_of, key_of


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a file: their images, and their embeddings if they were read."""

    entries: list[ImageEntry]
    embeddings: RawEmbeddings | None


class RowReader:
    """Reads the rows of a file from some row on, in order. Use it in a `with` block."""

    def __init__(self, file: EmbeddingFile, dim: int | None, start: int) -> None:
        """Open the file.

        Args:
            file: The file.
            dim: Number of values of an embedding. If None, only what decides the keys is read.
            start: The first row to read.

        Raises:
            InputError: If it cannot be read.
        """
        self._file, self._dim, self.position = file, dim, start
        self._columns = file.columns if dim else file.columns.only_keys()
        self._open = ExitStack()
        self._table: TableReader | None = None
        self._keys: KeyReader | None = None
        beside = file.beside or file.path
        if file.beside and beside.suffix.lower() != ".parquet":
            self._keys = KeyReader(beside, start)
        elif self._columns.names:
            self._table = self._open.enter_context(TableReader(beside, self._columns.names, start))

    def __enter__(self) -> "RowReader":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def read(self, num_rows: int) -> Rows:
        """The next rows.

        Raises:
            InputError: If the file is damaged, or an embedding has another number of values.
        """
        file, start = self._file, self.position
        self.position += num_rows
        table = self._table.read(num_rows) if self._table else None
        if self._keys:
            entries = _entries(file, Columns(key="key"), start, num_rows, {"key": self._keys.read(num_rows)})
        else:
            entries = _entries(file, self._columns, start, num_rows, _values(table, self._columns))
        if self._dim is None:
            return Rows(entries, None)
        if file.columns.embedding is None:
            return Rows(entries, matrix_rows(file.path, start, start + num_rows))
        return Rows(entries, column_rows(table[file.columns.embedding], self._dim, str(file.path), start))


def _values(table: pa.Table | None, columns: Columns) -> dict[str, list[Any]]:
    """Values of the columns, without the embeddings."""
    names = [name for name in columns.names if name != columns.embedding]
    return {name: [value for chunk in table[name].chunks for value in values_of(chunk)] for name in names}


def _entries(
    file: EmbeddingFile, columns: Columns, start: int, num_rows: int, values: dict[str, list[Any]]
) -> list[ImageEntry]:
    nothing = [None] * num_rows
    keys, captions, places = (values.get(name or "", nothing) for name in (columns.key, columns.caption, columns.uri))
    uri, folder = file.path.as_uri(), folder_of((file.beside or file.path).as_uri())
    entries = []
    for n, row in enumerate(range(start, start + num_rows)):
        entry = ImageEntry(
            key=key_of(keys[n]) or f"{file.key}/{row}",
            uri=_place(places[n], columns.uri, folder) or _row_uri(uri, file.columns.embedding, row),
            num_bytes=0,
            mtime_ns=0,
            caption=caption_of(captions[n]),
            extra={name: as_carried(values[name][n], kind) for name, kind in columns.carried.items()} or None,
        )
        entries.append(bare_entry(entry))
    return entries


def _place(value: Any, column: str | None, folder: str) -> str | None:
    text = column_of(value)
    # in clip-retrieval's folders of tars, it is not a path
    if not text or (column == "image_path" and not has_image_suffix(text)):
        return None
    return join_uri(folder, text)


def _row_uri(uri: str, column: str | None, row: int) -> str:
    return cell_uri(uri, column, row) if column else f"{uri}#row={row}"
