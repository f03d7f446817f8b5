"""Which embedded images are gone from their sources. Compares all sources of a store with its plans."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.planning.changes import Planned, key_of
from pipeline.planning.planned import planned_entries, planned_files
from pipeline.source.entry import Source
from pipeline.source.listing import Listing
from pipeline.store.view import StoreView


@dataclass
class Missing:
    """The rows of one source, without those that are deleted or replaced."""

    source: Source
    num_rows: int = 0
    ids: list[int] = field(default_factory=list)
    """Ids of the rows whose images are gone."""
    first: str = ""
    """Key of the first image, or of its file."""


def sources_of(view: StoreView) -> list[Source]:
    """The sources of a store, each as it was listed last."""
    return list({plan.source.identity: plan.source for plan in view.record.plans}.values())


def find_missing(view: StoreView, listings: Sequence[Listing]) -> list[Missing]:
    """Find the images that none of the sources has any more.

    Args:
        view: A finished store.
        listings: What each of its sources holds now.

    Raises:
        StoreError: If the tombstone file or a plan's list is damaged.
        InputError: If a listing has a key twice.
    """
    found = {source.identity: Missing(source) for source in sources_of(view)}
    listed = {listing.source.identity: listing for listing in listings}
    for old, is_missing in _compared(view, listed):
        of_source = found[old.source.identity]
        of_source.num_rows += 1
        if is_missing:
            of_source.ids.append(old.number)
            of_source.first = of_source.first or old.key
    names = {file.key for listing in listings for file in listing.files}
    for key, file in planned_files(view).items():
        of_source, ids = found[file.shards[0].source.identity], file.live_ids(view).tolist()
        of_source.num_rows += len(ids)
        if key not in names and ids and listed[of_source.source.identity].is_gone(key, file.shards[0].uri):
            of_source.ids += ids
            of_source.first = of_source.first or key
    return list(found.values())


def _compared(view: StoreView, listed: Mapping[tuple[str | None, ...], Listing]) -> Iterator[tuple[Planned, bool]]:
    """Yield each listed image of the store that is not deleted, and whether it is missing."""
    here = heapq.merge(*(listing for listing in listed.values() if listing.entries is not None), key=key_of)
    entry = next(here, None)
    for old in planned_entries(view):
        while entry and entry.key < old.key:
            entry = next(here, None)
        if not old.is_deleted:
            is_here = entry is not None and entry.key == old.key
            yield old, not is_here and listed[old.source.identity].is_gone(old.key, old.uri)
