"""Inputs and results of a comparison: planned images and files, and how a listing differs from them."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.text import TEXT_RULES
from pipeline.source.listing import Listing
from pipeline.source.sorting import Sorted
from pipeline.store.records import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """An image that a plan lists, or a shard of a file: where its rows are, and its state when it was planned."""

    key: str
    uri: str
    state: object
    source: Source
    shard: Shard
    number: int
    """Id of its row, or of its first row."""
    text_rules: int
    """Those of its plan."""
    is_deleted: bool = False
    """Deleted on request: it is not embedded again, even if it changes."""
    is_retried: bool = False
    """It failed, and is to be tried again."""


@dataclass
class Differences:
    """How a listing differs from the plans: counts, first keys, and the rows and shards affected."""

    num_changed: int = 0
    first_changed: str = ""
    num_lost: int = 0
    """Images and files that disappeared before they were embedded."""
    first_lost: str = ""
    num_gone: int = 0
    """Embedded images that the source no longer has."""
    first_gone: str = ""
    ids: array = field(default_factory=lambda: array("q"))
    """Ids of the rows of changed images and files."""
    unread: set[int] = field(default_factory=set)
    """Ordinals of shards whose file changed or disappeared before it was embedded."""

    def add_changed(self, key: str, ids: Iterable[int]) -> None:
        """Count an image or file that changed."""
        self.first_changed = self.first_changed or key
        self.num_changed += 1
        self.ids.extend(ids)

    def add_lost(self, key: str) -> None:
        """Count an image or file that is gone."""
        self.first_lost = self.first_lost or key
        self.num_lost += 1

    def add_gone(self, key: str, num_images: int = 1) -> None:
        """Count an embedded image, or those of a file, that the source no longer has."""
        self.first_gone = self.first_gone or key
        self.num_gone += num_images


@dataclass(kw_only=True)
class Changes:
    """What is to be done about a listing: nothing has been written yet."""

    entries: Sorted[ImageEntry] | Listing | None = None
    """Images to embed, sorted by key; those that are tried again name the row that they replace."""
    files: list[SourceFile] = field(default_factory=list)
    """Files to embed."""
    retried: tuple[str, ...] = ()
    """The statuses of the rows that are tried again."""
    replaces_changed: bool = False
    """Whether images that changed are embedded again, and shards whose file changed are dropped."""
    differences: Differences = field(default_factory=Differences)

    @property
    def again(self) -> Iterator[ImageEntry]:
        """The images to try again."""
        return (entry for entry in self.entries or () if entry.replaces is not None)

    @property
    def new(self) -> Iterator[ImageEntry]:
        """The images that are new, or changed."""
        return (entry for entry in self.entries or () if entry.replaces is None)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        drops = self.replaces_changed and (self.differences.ids or self.differences.unread)
        return bool(self.files or drops or next(iter(self.entries or ()), None))


def image_state(entry: ImageEntry, text_rules: int) -> object:
    """What differs if an image changed. Texts count only if today's rules read them."""
    return entry.state if text_rules == TEXT_RULES else entry.state[:2]


def file_state(file: SourceFile, source: Source, text_rules: int) -> object:
    """What differs if a file changed, or other columns of it are asked for."""
    captions = source.caption_column if text_rules == TEXT_RULES else None
    return file, source.image_column, source.key_column, captions


def key_of(item: ImageEntry | Planned) -> str:
    """Sort key of listings and plans."""
    return item.key
