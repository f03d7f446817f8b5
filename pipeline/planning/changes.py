"""What is compared and what comes of it: planned images and files, and the differences of a listing from them."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.source.entry import ImageEntry
from pipeline.store.records import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """An image that a plan lists, or a shard of a file: where its rows are, and what was known of it."""

    key: str
    uri: str
    state: object
    location: str
    shard: Shard
    number: int
    """Id of its row, or of its first one."""
    is_deleted: bool = False
    """Asked to stay away, whatever its source has."""


@dataclass
class Differences:
    """How a listing differs from the plans: counts, the first keys, and what is to be done about it."""

    num_changed: int = 0
    first_changed: str = ""
    num_lost: int = 0
    """Gone before they were embedded."""
    first_lost: str = ""
    ids: array = field(default_factory=lambda: array("q"))
    """Rows of what changed."""
    unread: set[int] = field(default_factory=set)
    """Ordinals of shards whose file changed, or went, before it was embedded."""

    def add_changed(self, key: str, ids: Iterable[int]) -> None:
        """Count an image or file that changed."""
        self.first_changed = self.first_changed or key
        self.num_changed += 1
        self.ids.extend(ids)

    def add_lost(self, key: str) -> None:
        """Count an image or file that is gone."""
        self.first_lost = self.first_lost or key
        self.num_lost += 1


def key_of(item: ImageEntry | Planned) -> str:
    """What listings and plans are sorted by."""
    return item.key
