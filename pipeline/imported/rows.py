"""Rows of a file of embeddings: whose they are, and the embeddings, read in order."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pipeline.imported.columns import Columns
from pipeline.imported.files import EmbeddingFile
from pipeline.imported.matrix import RawEmbeddings, column_rows, matrix_rows
from pipeline.imported.tables import KeyReader, TableReader
from pipeline.source.access.naming import folder_of, join_uri
from pipeline.source.entry import ImageResult, Status
from pipeline.source.formats.arrow_types import values_of
from pipeline.source.formats.folder import has_image_suffix
from pipeline.source.formats.parquet import as_carried, cell_uri
from pipeline.source.formats.text import caption_of, column_of, key_of
from pipeline.source.secrets import columns_without_credentials, key_without_credentials, without_credentials


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a file: what is known of their images, all with status `ok`, and their embeddings."""

    results: list[ImageResult]
    embeddings: RawEmbeddings


class RowReader:
    """Reads the rows of a file from some row on, in order. Use it in a `with` block."""

    def __init__(self, file: EmbeddingFile, columns: Columns, start: int) -> None:
        """Open the file.

        Args:
            file: The file.
            columns: The columns to read: those of the file, or some of them.
            start: The first row to read.

        Raises:
            InputError: If it cannot be read.
        """
        self._file, self._columns, self.position = file, columns, start
        self._open = ExitStack()
        self._table: TableReader | None = None
        self._lines: KeyReader | None = None
        if file.beside and file.beside.suffix.lower() != ".parquet":
            self._lines = KeyReader(file.beside, start)
        elif columns.names:
            self._table = self._open.enter_context(TableReader(file.beside or file.path, columns.names, start))

    def __enter__(self) -> "RowReader":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def read_keys(self, num_rows: int) -> list[str]:
        """The keys of the next rows; of a row without one, file and row number.

        Raises:
            InputError: If the file is damaged.
        """
        start = self.position
        self.position += num_rows
        return self._keys(start, num_rows, self._values(num_rows)[0])

    def read(self, num_rows: int, dim: int) -> Rows:
        """The next rows, with embeddings of `dim` values.

        Raises:
            InputError: If the file is damaged, or an embedding has another number of values.
        """
        file, columns, start = self._file, self._columns, self.position
        self.position += num_rows
        values, lists = self._values(num_rows)
        keys = self._keys(start, num_rows, values)
        captions, places = (values.get(name or "", [None] * num_rows) for name in (columns.caption, columns.uri))
        uri, folder = file.path.as_uri(), folder_of((file.beside or file.path).as_uri())
        results = [
            ImageResult(
                key=keys[n],
                uri=_place(places[n], columns.uri, folder) or _row_uri(uri, columns.embedding, start + n),
                caption=_text(captions[n], caption_of),
                status=Status.OK,
                extra=_carried(values, columns, n),
            )
            for n in range(num_rows)
        ]
        if lists is None:
            return Rows(results, matrix_rows(file.path, start, start + num_rows))
        return Rows(results, column_rows(lists, dim, str(file.path), start))

    def _values(self, num_rows: int) -> tuple[dict[str, list[Any]], Any]:
        """Values of the next rows by column, and the column of embeddings if there is one."""
        if self._table is None:
            return {}, None
        table, embedding = self._table.read(num_rows), self._columns.embedding
        names = [name for name in self._columns.names if name != embedding]
        values = {name: [value for chunk in table[name].chunks for value in values_of(chunk)] for name in names}
        return values, table[embedding] if embedding else None

    def _keys(self, start: int, num_rows: int, values: dict[str, list[Any]]) -> list[str]:
        found: Sequence[Any] = values.get(self._columns.key or "", [None] * num_rows)
        if self._lines:
            found = self._lines.read(num_rows)
        keys = (_text(value, key_of) for value in found)
        return [_bare(key) if key else f"{self._file.key}/{start + n}" for n, key in enumerate(keys)]


def _text(value: Any, reader: Callable[[Any], str | None]) -> str | None:
    # nearly all values are plain or missing, and there are millions of them
    if value is None:
        return None
    if type(value) is str and value.isascii():
        return (value.strip() if reader is caption_of else value) or None
    return reader(value)


def _bare(key: str) -> str:
    return key_without_credentials(key) if "://" in key else key


def _place(value: Any, column: str | None, folder: str) -> str | None:
    text = _text(value, column_of)
    # in clip-retrieval's folders of tars, it is not a path
    if not text or (column == "image_path" and not has_image_suffix(text)):
        return None
    return without_credentials(join_uri(folder, text))


def _row_uri(uri: str, column: str | None, row: int) -> str:
    return cell_uri(uri, column, row) if column else f"{uri}#row={row}"


def _carried(values: dict[str, list[Any]], columns: Columns, n: int) -> dict[str, Any] | None:
    if not columns.carried:
        return None
    return columns_without_credentials(
        {name: as_carried(values[name][n], kind) for name, kind in columns.carried.items()}
    )
