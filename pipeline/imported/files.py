"""Find the files of a source of embeddings, and what is known of them without reading all rows.

- FOLDER/img_emb/img_emb_0.npy and FOLDER/metadata/metadata_0.parquet, as clip-retrieval writes them
- Parquet files with a column of embeddings, in a folder or alone
- FILE.npy and FILE.txt or FILE.parquet: a matrix, and its keys or its metadata
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.imported.columns import CLIP_RETRIEVAL_KEYS, KEY_COLUMNS, Columns, resolve_columns
from pipeline.imported.matrix import open_matrix, other_length
from pipeline.imported.tables import count_lines, first_length
from pipeline.settings.imports import ImportSettings
from pipeline.source.access.location import examine
from pipeline.source.access.naming import path_of, uri_of
from pipeline.source.entry import Source, SourceFile
from pipeline.source.formats.arrow_types import floats_of
from pipeline.source.formats.parquet import read_footer
from pipeline.source.formats.text import as_text
from pipeline.source.formats.tree import Rules, walk
from pipeline.source.left_out import Kind, LeftOut
from pipeline.store.parts import refuse_taken_names
from pipeline.store.records import IMPORTED

_MATRICES, _METADATA = "img_emb", "metadata"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFile:
    """A file of embeddings and, if they are a matrix, the file beside it that says whose they are."""

    key: str
    """Path relative to the source."""

    path: Path
    beside: Path | None
    """Parquet file with one row per embedding, or text file with one key per line."""

    num_rows: int
    dim: int | None
    """None if only its rows tell."""

    is_half: bool
    columns: Columns

    def as_planned(self) -> SourceFile:
        """The file as a plan records it.

        Raises:
            InputError: If it is gone.
        """
        num_bytes, mtime_ns = examine(str(self.path))
        uri = self.path.as_uri()
        return SourceFile(key=self.key, uri=uri, num_bytes=num_bytes, mtime_ns=mtime_ns, num_rows=self.num_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """A source of embeddings: its files in the order of their rows' ids."""

    source: Source
    files: list[EmbeddingFile]
    left_out: LeftOut
    dim: int
    is_half: bool
    """Whether all of them are float16."""


def find_embeddings(settings: ImportSettings) -> Embeddings:
    """Find the files of a source and check what they hold, as far as headers and footers tell.

    Raises:
        InputError: If the source is missing, empty or damaged, has another layout, or its files do not match.
        ConfigError: If a carried column has a name of our own.
    """
    refuse_taken_names(settings.carried())
    path, left_out = Path(path_of(uri_of(str(settings.source)))), LeftOut()
    files = list(_files_of(settings, path, left_out))
    if not any(file.num_rows for file in files):
        raise InputError(f"source {settings.source} has no rows; pass files that contain embeddings")
    first = files[0].columns
    for file in files[1:]:
        if file.columns != first:
            raise InputError(
                f"{file.path} and {files[0].path} have other columns, or other types of them ({file.columns.names} and "
                f"{first.names} are used); make them agree, or import them into stores of their own"
            )
    source = Source(
        location=as_text(path),
        format=IMPORTED,
        image_column=first.embedding,
        key_column=first.key,
        caption_column=first.caption,
        columns=first.carried,
    )
    is_half = all(file.is_half for file in files)
    return Embeddings(source=source, files=files, left_out=left_out, dim=_dim_of(files), is_half=is_half)


def _files_of(settings: ImportSettings, path: Path, left_out: LeftOut) -> Iterator[EmbeddingFile]:
    is_folder, suffix = path.is_dir(), path.suffix.lower()
    if not is_folder:
        examine(str(path))
    if settings.keys and (is_folder or suffix != ".npy"):
        raise InputError(f"--keys is for a .npy matrix, but the source is {path}; pass --key-column instead")
    if is_folder and (path / _MATRICES).is_dir():
        yield from _clip_retrieval(settings, path, left_out)
    elif is_folder:
        found = sorted(_walked(path, (".parquet",), left_out))
        if not found:
            left = f" (left out: {left_out.describe()})" if left_out else ""
            raise InputError(
                f"source {path} holds no .parquet files and no folder {_MATRICES}{left}; pass a folder of Parquet "
                "files, one that clip-retrieval wrote, or a .npy file"
            )
        yield from (_parquet(settings, path / key, key) for key in found)
    elif suffix == ".npy":
        yield _matrix(settings, path, settings.keys, path.name, KEY_COLUMNS)
    elif suffix == ".parquet":
        yield _parquet(settings, path, path.name)
    else:
        raise InputError(f"source {path} is neither a folder nor a .parquet or .npy file; convert it to one of them")


def _walked(folder: Path, suffixes: tuple[str, ...], left_out: LeftOut) -> list[str]:
    rules = Rules(lambda name: name.lower().endswith(suffixes), Kind.OTHER_FORMAT)
    return [str(Path(path_of(entry.uri)).relative_to(folder)) for entry in walk(str(folder), rules, left_out)]


def _clip_retrieval(settings: ImportSettings, folder: Path, left_out: LeftOut) -> Iterator[EmbeddingFile]:
    matrices, tables = {}, {}
    for key in sorted(_walked(folder, (".npy", ".parquet"), left_out)):
        if found := re.fullmatch(rf"{_MATRICES}/img_emb_([^/]+)\.npy", key):
            matrices[found[1]] = key
        elif found := re.fullmatch(rf"{_METADATA}/metadata_([^/]+)\.parquet", key):
            tables[found[1]] = key
        else:  # such as embeddings of texts
            left_out.add(Kind.OTHER_FORMAT, key)
    alone = sorted(matrices.keys() ^ tables.keys(), key=_by_number)
    if alone:
        number = alone[0]
        here, other = matrices.get(number), f"{_METADATA}/metadata_{number}.parquet"
        if here is None:
            here, other = tables[number], f"{_MATRICES}/img_emb_{number}.npy"
        raise InputError(f"{folder / here} has no {other} beside it, as clip-retrieval writes them; copy both, or none")
    for number in sorted(matrices, key=_by_number):
        key = matrices[number]
        yield _matrix(settings, folder / key, folder / tables[number], key, CLIP_RETRIEVAL_KEYS)


def _by_number(text: str) -> tuple[float, str]:
    return (int(text) if text.isdecimal() else float("inf"), text)


def _keys_beside(path: Path) -> Path:
    places = [place for suffix in (".txt", ".parquet") if (place := path.with_suffix(suffix)).is_file()]
    if len(places) != 1:
        found = "neither" if not places else "both"
        raise InputError(
            f"{path} has {found} {path.stem}.txt and {path.stem}.parquet beside it; pass --keys with the file that "
            "names its rows, such as a text file with one key per line"
        )
    return places[0]


def _matrix(
    settings: ImportSettings, path: Path, named: Path | None, key: str, key_columns: tuple[str, ...]
) -> EmbeddingFile:
    matrix = open_matrix(path)
    (num_rows, dim), beside = matrix.shape, named or _keys_beside(path)
    columns, what = Columns(), "keys"
    if beside.suffix.lower() == ".parquet":
        schema, num_named = read_footer(beside.absolute().as_uri())
        columns, what = resolve_columns(settings, str(beside), schema, key_columns, has_embeddings=False), "rows"
    else:
        _refuse_columns(settings, beside)
        num_named = count_lines(beside)
    if num_named != num_rows:
        raise InputError(
            f"{beside} has {num_named} {what}, but {path} has {num_rows} rows; there must be one per embedding"
        )
    return EmbeddingFile(
        key=as_text(key),
        path=path,
        beside=beside.absolute(),
        num_rows=num_rows,
        dim=dim if num_rows else None,
        is_half=matrix.dtype.itemsize == 2,
        columns=columns,
    )


def _refuse_columns(settings: ImportSettings, keys: Path) -> None:
    names = ("key_column", "caption_column", "uri_column", "columns")
    named = next((name for name in names if getattr(settings, name)), None)
    if named:
        raise InputError(
            f"{keys} has keys and no columns; drop --{named.replace('_', '-')}, or pass a Parquet file with --keys"
        )


def _parquet(settings: ImportSettings, path: Path, key: str) -> EmbeddingFile:
    schema, num_rows = read_footer(path.as_uri())
    columns = resolve_columns(settings, str(path), schema, KEY_COLUMNS, has_embeddings=True)
    element, dim = floats_of(schema.field(columns.embedding))
    return EmbeddingFile(
        key=as_text(key),
        path=path,
        beside=None,
        num_rows=num_rows,
        dim=dim if num_rows else None,
        is_half=pa.types.is_float16(element),
        columns=columns,
    )


def _dim_of(files: list[EmbeddingFile]) -> int:
    """The number of values of every embedding; of lists whose type does not say it, of the first that has any."""
    known = [file for file in files if file.dim is not None]
    for file in known[1:]:
        if file.dim != known[0].dim:
            raise other_length(str(file.path), 0, file.dim, known[0].dim)
    if known and not known[0].dim:
        raise InputError(f"{known[0].path} has embeddings of 0 values; pass files with one embedding per row")
    if known:
        return known[0].dim
    lengths = (first_length(file.path, file.columns.embedding) for file in files)
    dim = next(filter(None, lengths), None)
    if dim is None:
        raise InputError(f"no row of {files[0].path.parent} has an embedding; pass files that contain embeddings")
    return dim
