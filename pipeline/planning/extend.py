"""Turn a listing into plans: the first plan of a store, and another one when its source has grown or changed.

The listing and the plans are walked in parallel, sorted by key, so memory does not grow with them.
"""

from collections.abc import Iterable, Iterator

from pipeline.errors import InputError, StoreError
from pipeline.planning.changes import Differences, key_of
from pipeline.planning.compare import Comparison
from pipeline.planning.fresh_links import refuse_without_credentials
from pipeline.planning.shards import cut_entries, cut_files
from pipeline.settings.embed import OnChange
from pipeline.source.entry import Source
from pipeline.source.listing import Listing
from pipeline.source.sorting import Sorted
from pipeline.store.layout import Store
from pipeline.store.records import StoreRecord
from pipeline.store.tombstones import REPLACED, add_tombstones, create_tombstones
from pipeline.store.view import StoreView


def extend_plan(
    view: StoreView,
    listing: Listing,
    on_change: OnChange = "stop",
    checks_content: bool = False,
    capacity: int | None = None,
) -> StoreView:
    """Plan the part of a listing that no plan has yet.

    Args:
        view: The store, with its plans so far.
        listing: What the source holds now.
        on_change: What to do about images that changed since they were planned: `stop` with an error, `keep` them as
            planned, or `embed` them again and tombstone the old rows.
        checks_content: Also compare bytes, to find changes that sizes and times do not show.
        capacity: Images per new shard. If None, the store's own capacity.

    Returns:
        The store, with one more plan if there is anything new.

    Raises:
        StoreError: If images changed, or disappeared before they were embedded, and `on_change` is `stop`.
        InputError: If a key of the listing is already in the store, from another location.
    """
    store, record = view.store, view.record
    capacity = capacity or record.shard_capacity
    if not record.plans:
        create_tombstones(store)
        new = listing if listing.entries is not None else listing.files
        return StoreView.now(store, _add(store, record, listing, new, capacity))
    _refuse_nested(record, listing.source)
    refuse_without_credentials(view, listing, checks_content)
    comparison = Comparison(view, listing, on_change, checks_content)
    # finish the comparison before anything is written
    new = comparison.new_files() if listing.entries is None else Sorted(comparison.new_entries(), key_of)
    differences = comparison.differences
    if on_change == "stop":
        _refuse(store, differences)
    if on_change == "embed":
        # in this order, a kill in between neither loses an image nor shows one twice
        record = _drop(store, record, differences.unread)
        add_tombstones(store, differences.ids, REPLACED)
    return StoreView.now(store, _add(store, record, listing, new, capacity))


def _add(store: Store, record: StoreRecord, listing: Listing, new: Iterable, capacity: int) -> StoreRecord:
    ordinal, first_id = record.next_numbers
    if listing.entries is not None:
        shards: Iterator = cut_entries(new, capacity, ordinal, first_id)
    else:
        shards = ((shard, None) for shard in cut_files(new, listing.source, capacity, ordinal, first_id))
    first = next(shards, None)
    if first is None:
        return record

    def rest() -> Iterator:
        yield first
        yield from shards

    return store.add_plan(record, listing.source, rest())


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
