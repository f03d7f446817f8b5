"""Turn a listing into plans: the first plan of a store, and another one when its source has grown or changed.

`find_changes` compares and writes nothing; `write_changes` writes. The listing and the plans are walked in parallel,
sorted by key, so memory does not grow with them.
"""

from collections import deque
from collections.abc import Collection, Iterator
from itertools import chain

from pipeline.errors import InputError, StoreError
from pipeline.planning.changes import Changes, Differences, key_of
from pipeline.planning.compare import Comparison
from pipeline.planning.fresh_links import refuse_without_credentials
from pipeline.planning.new_keys import refuse_keys
from pipeline.planning.shards import cut_entries, cut_files
from pipeline.settings.embed import OnChange
from pipeline.source.entry import ImageEntry, Source
from pipeline.source.listing import Listing
from pipeline.source.sorting import Sorted
from pipeline.store.layout import Store
from pipeline.store.records import Shard, StoreRecord
from pipeline.store.tombstones import REPLACED, add_tombstones, create_tombstones
from pipeline.store.view import StoreView


def find_changes(
    view: StoreView | None,
    listing: Listing,
    on_change: OnChange = "stop",
    checks_content: bool = False,
    retried: Collection[str] = (),
) -> Changes:
    """Compare a listing with the plans of a store. Writes nothing.

    Args:
        view: The store, with its plans so far. None if it is new.
        listing: What the source holds now.
        on_change: What to do about images that changed since they were planned: `stop` with an error, `keep` them as
            planned, or `embed` them again and tombstone the old rows.
        checks_content: Also compare bytes, to find changes that sizes and times do not show.
        retried: Statuses of failed rows whose images are tried again, if the source still has them.

    Raises:
        StoreError: If images changed, or disappeared before they were embedded, and `on_change` is `stop`.
        InputError: If a key occurs twice in the listing, or is already in the store, from another location; if a
            column of keys or captions has a type that is of no use.
    """
    if view is None or not view.record.plans:
        deque(listing, maxlen=0)  # repeated keys are found before anything else is done
        refuse_keys(view, listing, listing.files)
        return Changes(entries=listing if listing.entries is not None else None, files=listing.files)
    _refuse_nested(view.record, listing.source)
    refuse_without_credentials(view, listing, checks_content or bool(retried))
    comparison = Comparison(view, listing, on_change, checks_content, retried)
    if listing.entries is not None:
        entries, files = Sorted(comparison.entries(), key_of), []
    else:
        files, entries = comparison.files()
    if on_change == "stop":
        _refuse(view.store, comparison.differences)
    changes = Changes(
        entries=entries,
        files=files,
        retried=tuple(retried),
        replaces_changed=on_change == "embed",
        differences=comparison.differences,
    )
    refuse_keys(view, listing, files, changes.new, changes.differences if changes.replaces_changed else None)
    return changes


def write_changes(
    view: StoreView, listing: Listing, changes: Changes, capacity: int | None = None, max_pixels: int | None = None
) -> StoreView:
    """Plan what a comparison found.

    Args:
        view: The store, as it was compared.
        listing: What the source holds.
        changes: What `find_changes` found.
        capacity: Images per new shard. If None, the store's own capacity.
        max_pixels: Limit on the pixels of images that are tried again. If None, that of the store.

    Returns:
        The store, with more plans if there is anything new.
    """
    store, record = view.store, view.record
    capacity = capacity or record.shard_capacity
    if not record.plans:
        create_tombstones(store)
    # first finish what a killed job left: its plan counts, the rows that it replaces may still be there
    add_tombstones(store, view.tried_again, REPLACED)
    if changes.retried:
        max_pixels = None if max_pixels == record.max_pixels else max_pixels
        again = cut_entries(changes.again, capacity, *record.next_numbers)
        record = _add(store, record, listing, again, changes.retried, max_pixels)
        add_tombstones(store, (entry.replaces for entry in changes.again), REPLACED)
    if changes.replaces_changed:
        # in this order, a kill in between neither loses an image nor shows one twice
        record = _drop(store, record, changes.differences.unread)
        add_tombstones(store, changes.differences.ids, REPLACED)
    entries = cut_entries(changes.new, capacity, *record.next_numbers)
    record = _add(store, record, listing, entries)
    files = cut_files(changes.files, listing.source, capacity, *record.next_numbers)
    record = _add(store, record, listing, ((shard, None) for shard in files))
    return StoreView(store, record, view.committed)


def _add(
    store: Store,
    record: StoreRecord,
    listing: Listing,
    shards: Iterator[tuple[Shard, list[ImageEntry] | None]],
    retried: Collection[str] = (),
    max_pixels: int | None = None,
) -> StoreRecord:
    first = next(shards, None)
    if first is None:
        return record
    return store.add_plan(record, listing.source, chain([first], shards), retried, max_pixels)


def _refuse_nested(record: StoreRecord, source: Source) -> None:
    """Refuse a folder that contains, or is inside, a folder of the store, or is the same one with another prefix."""
    for plan in record.plans:
        old = plan.source
        if source.format != "folder" or old.format != "folder":
            continue
        inner, outer = sorted(
            [f"{old.location.rstrip('/')}/", f"{source.location.rstrip('/')}/"], key=len, reverse=True
        )
        if inner.startswith(outer) and (inner != outer or old.key_prefix != source.key_prefix):
            raise InputError(
                f"the folder {source.location} shares images with {old.location}, which is in the store under other "
                "keys; they would be there twice: name the source as before, or name only what is new"
            )


def _refuse(store: Store, differences: Differences) -> None:
    if differences.num_changed:
        raise StoreError(
            f"{differences.num_changed} images or files of the store {store.root} changed since they were planned "
            f"(size, time, caption, columns or content), first {differences.first_changed!r}; restore them, or pass "
            "--on-change embed to embed them again, or --on-change keep to continue as planned"
        )
    if differences.num_lost:
        raise StoreError(
            f"{differences.num_lost} images or files of the store {store.root} disappeared before they were embedded, "
            f"first {differences.first_lost!r}; restore them, or pass --on-change embed to continue without them"
        )


def _drop(store: Store, record: StoreRecord, ordinals: set[int]) -> StoreRecord:
    """Mark shards as dropped in their plans: their file changed or disappeared before they were embedded."""
    plans = []
    for plan in record.plans:
        if any(shard.ordinal in ordinals for shard in plan.shards):
            shards = tuple(
                shard.model_copy(update={"is_dropped": True}) if shard.ordinal in ordinals else shard
                for shard in plan.shards
            )
            plan = plan.model_copy(update={"shards": shards})
            store.write_plan(plan)
        plans.append(plan)
    return record.model_copy(update={"plans": tuple(plans)})
