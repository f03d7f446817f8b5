"""What is known of an image before it is read and after it was decoded, and of a file that holds many."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
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
    caption: str | None = field(default=None, kw_only=True)
    extra: dict[str, Any] | None = field(default=None, kw_only=True)
    data: bytes | None = field(default=None, kw_only=True)

    def __reduce__(self) -> tuple[Callable[..., "ImageEntry"], tuple[Any, ...]]:
        """Pickle the values alone, twice as fast as dataclasses do it: entries travel by millions."""
        return _entry, (self.key, self.uri, self.num_bytes, self.mtime_ns, self.caption, self.extra, self.data)

    @property
    def state(self) -> tuple[int, int, str | None, dict[str, Any] | None]:
        """What tells that the image, or what is said of it, changed."""
        return self.num_bytes, self.mtime_ns, self.caption, self.extra


def _entry(
    key: str,
    uri: str,
    num_bytes: int,
    mtime_ns: int,
    caption: str | None,
    extra: dict[str, Any] | None,
    data: bytes | None,
) -> ImageEntry:
    return ImageEntry(key, uri, num_bytes, mtime_ns, caption=caption, extra=extra, data=data)


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


class Status(StrEnum):
    """What came of an image, as it is written to its row."""

    OK = "ok"
    UNREADABLE = "unreadable"
    UNDECODABLE = "undecodable"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """What is known of one image besides its embedding.

    `width` and `height` are pixels as shown (EXIF rotation applied), None if unknown; `sha256` is of the file's
    bytes, None if they were not read; `error` is None exactly where `status` is ok.
    """

    key: str
    uri: str
    caption: str | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    status: Status
    error: str | None = None
    extra: dict[str, Any] | None = None

    @classmethod
    def of(cls, entry: ImageEntry, status: Status, error: str | None = None, **known: Any) -> "ImageResult":
        """The result of an entry; `known` are width, height and sha256, as far as they are."""
        found = {"key": entry.key, "uri": entry.uri, "caption": entry.caption, "extra": entry.extra}
        return cls(**found, status=status, error=error, **known)

    @property
    def is_ok(self) -> bool:
        """Whether the image has an embedding."""
        return self.status == Status.OK
