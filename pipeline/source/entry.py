"""What is known of an image before it is read, and of a file that holds many."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image to embed.

    `key` names it within the store; `uri` says where it is, `#member=...` or `#row=...` where a file holds many;
    `num_bytes` and `mtime_ns` are 0 where they are not known; `extra` are the values of columns carried along;
    `data` are the encoded bytes, where the source was read and not only listed.
    """

    key: str
    uri: str
    num_bytes: int
    mtime_ns: int
    caption: str | None = None
    extra: dict[str, Any] | None = None
    data: bytes | None = None

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """As its values, twice as fast as what dataclasses do: entries go to disk and to workers by millions."""
        return ImageEntry, (self.key, self.uri, self.num_bytes, self.mtime_ns, self.caption, self.extra, self.data)

    @property
    def state(self) -> tuple[int, int, str | None, dict[str, Any] | None]:
        """What tells that the image, or what is said of it, changed."""
        return self.num_bytes, self.mtime_ns, self.caption, self.extra


class SourceFile(BaseModel):
    """A tar or Parquet file of a source; `num_rows` is None where it would have to be read to be counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    uri: str
    num_bytes: int
    mtime_ns: int
    num_rows: int | None = None


class Source(BaseModel):
    """Where images come from, and which columns of it are used; a plan records it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    location: str
    format: str
    image_column: str | None = None
    key_column: str | None = None
    caption_column: str | None = None
    columns: dict[str, str] = {}
    """Columns carried along, with their Arrow types."""
    key_prefix: str = ""


STATUSES = ("ok", "unreadable", "undecodable", "too_large", "timeout", "crashed")


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What is known of one image besides its embedding.

    `width` and `height` are pixels as shown (EXIF rotation applied), None if unknown; `sha256` is of the file's
    bytes, None if they were not read; `error` is None exactly where `status` is `ok`.
    """

    key: str
    uri: str
    caption: str | None
    width: int | None
    height: int | None
    sha256: str | None
    status: str
    error: str | None
    extra: dict[str, Any] | None = None
