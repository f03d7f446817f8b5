"""Which columns of a Parquet file hold embeddings, keys, captions and the places of images."""

from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.settings.imports import ImportSettings
from pipeline.source.formats.arrow_types import (
    fault_of_captions,
    fault_of_key,
    fault_of_uris,
    floats_of,
    kind_carried,
)
from pipeline.source.formats.parquet import choose_column, field_named
from pipeline.source.formats.text import CAPTION_COLUMNS

KEY_COLUMNS = ("key",)
CLIP_RETRIEVAL_KEYS = ("image_path", "key")
URI_COLUMNS = ("uri", "url", "image_path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns that are used, by their names; None for what there is no column of. `carried` has Arrow types."""

    embedding: str | None = None
    key: str | None = None
    caption: str | None = None
    uri: str | None = None
    carried: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        return sorted({self.embedding, self.key, self.caption, self.uri, *self.carried} - {None})

    def only_keys(self) -> "Columns":
        """The column of keys."""
        return Columns(key=self.key)


def resolve_columns(
    settings: ImportSettings, where: str, schema: pa.Schema, key_columns: tuple[str, ...], has_embeddings: bool
) -> Columns:
    """The columns of a file that the settings name, or that have usual names.

    Args:
        settings: Which columns to use.
        where: The file, for messages.
        schema: Its columns.
        key_columns: Usual names of its column of keys.
        has_embeddings: Whether the embeddings are in this file.

    Raises:
        InputError: If a named column is missing, or a column has a type that is of no use.
    """
    key = choose_column(where, schema, settings.key_column, key_columns, "--key-column")
    caption = choose_column(where, schema, settings.caption_column, CAPTION_COLUMNS, "--caption-column")
    place = choose_column(where, schema, settings.uri_column, URI_COLUMNS, "--uri-column")
    faults = [
        key and fault_of_key(schema.field(key)),
        caption and fault_of_captions(schema.field(caption)),
        place and fault_of_uris(schema.field(place)),
    ]
    fault = next(filter(None, faults), None)
    if fault:
        raise InputError(f"{where}: {fault}")
    return Columns(
        embedding=_embedding_column(settings.embedding_column, where, schema) if has_embeddings else None,
        key=key,
        caption=caption,
        uri=place,
        carried={name: kind_carried(field_named(where, schema, name, "--columns")) for name in settings.carried()},
    )


def _embedding_column(name: str, where: str, schema: pa.Schema) -> str:
    found = field_named(where, schema, name, "--embedding-column")
    if floats_of(found) is None:
        others = [other.name for other in schema if floats_of(other) is not None]
        advice = f"pass --embedding-column with one of {', '.join(others)}" if others else "store it as such lists"
        raise InputError(f"{where}: column {name!r} is {found.type}, expected lists of floats; {advice}")
    return name
