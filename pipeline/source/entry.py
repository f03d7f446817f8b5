"""Records of an image before it is read and after it is decoded, and of a file that holds many images."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from pipeline.source.limits import known_size, known_time_ns
from pipeline.source.secrets import key_without_credentials, without_credentials


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image to embed.

    `key` names it within the store. `uri` locates it, with `#member=...` or `#row=...` if one file holds many images.
    `num_bytes` and `mtime_ns` are 0 if unknown. `extra` has the values of carried columns. `data` has the encoded
    bytes if the source was read, not only listed. `replaces` is the id of the failed row that this image had before,
    if it is tried again.
    """

    key: str
    uri: str
    num_bytes: int
    mtime_ns: int
    caption: str | None = field(default=None, kw_only=True)
    extra: dict[str, Any] | None = field(default=None, kw_only=True)
    data: bytes | None = field(default=None, kw_only=True)
    replaces: int | None = field(default=None, kw_only=True)

    def __reduce__(self) -> tuple[Callable[..., "ImageEntry"], tuple[Any, ...]]:
        """Pickle only the values, twice as fast as a dataclass does by default: millions of entries are pickled."""
        values = (self.key, self.uri, self.num_bytes, self.mtime_ns, self.caption, self.extra, self.data, self.replaces)
        return _entry, values

    @property
    def state(self) -> tuple[int, int, str | None, dict[str, Any] | None]:
        """Values that differ if the image or its metadata changed."""
        return self.num_bytes, self.mtime_ns, self.caption, self.extra


def _entry(
    key: str,
    uri: str,
    num_bytes: int,
    mtime_ns: int,
    caption: str | None,
    extra: dict[str, Any] | None,
    data: bytes | None,
    replaces: int | None,
) -> ImageEntry:
    return ImageEntry(key, uri, num_bytes, mtime_ns, caption=caption, extra=extra, data=data, replaces=replaces)


class SourceFile(BaseModel):
    """A tar or Parquet file of a source. `num_rows` is None for tars, which must be read to be counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    uri: str
    num_bytes: Annotated[int, AfterValidator(known_size)]
    mtime_ns: Annotated[int, AfterValidator(known_time_ns)]
    num_rows: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_out_credentials(cls, values: Any) -> Any:
        """Earlier plans have signed links, and dates of any size: compared with today's files, they must not."""
        uri, key = values.get("uri"), values.get("key")
        if not isinstance(uri, str) or not isinstance(key, str):
            return values  # refused by the types of the fields
        bare = without_credentials(uri)
        return values if bare == uri else {**values, "uri": bare, "key": key_without_credentials(key)}


class Source(BaseModel):
    """Where images come from, and which of its columns are used. Recorded in the plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    location: str
    format: str
    image_column: str | None = None
    """Column of images; of an import, the column of embeddings."""

    key_column: str | None = None
    caption_column: str | None = None
    is_caption_column_named: bool = False
    """Whether the user chose the caption column. In tars, it then counts before `.txt`."""

    columns: dict[str, str] = {}
    """Carried columns, with their Arrow types."""
    key_prefix: str = ""
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders to leave out."""
    follow_links: bool = False
    """Whether to list the folders that links lead to."""
    is_signed: bool = False
    """Whether its URLs have credentials, which are not recorded."""

    @property
    def identity(self) -> tuple[str | None, ...]:
        """What decides which images it has, and their keys."""
        return self.location, self.format, self.image_column, self.key_column, self.key_prefix


def bare_source(source: Source) -> Source:
    """A source without credentials in its location, as it is recorded."""
    return source.model_copy(update={"location": without_credentials(source.location)})


class Status(StrEnum):
    """Outcome for one image, as written to its row."""

    OK = "ok"
    UNREADABLE = "unreadable"
    UNDECODABLE = "undecodable"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    BAD_EMBEDDING = "bad_embedding"
    """Imported without a usable embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """What is known of one image besides its embedding.

    `width` and `height` are in pixels as shown (EXIF rotation applied), None if unknown. `sha256` is the hash of the
    file's bytes, None if they were not read. `error` is None exactly where `status` is ok.
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
        """The result for an entry. `known` takes width, height and sha256 if they are known."""
        found = {"key": entry.key, "uri": entry.uri, "caption": entry.caption, "extra": entry.extra}
        return cls(**found, status=status, error=error, **known)

    @property
    def is_ok(self) -> bool:
        """Whether the image has an embedding."""
        return self.status == Status.OK
