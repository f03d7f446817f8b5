"""Refuse to read signed links from a list that has no credentials for them."""

from collections.abc import Iterator
from itertools import chain, islice

from pipeline.errors import InputError
from pipeline.planning.batches import urls_of
from pipeline.source.access.credentials import KEYRING
from pipeline.source.access.naming import is_url
from pipeline.source.listing import Listing
from pipeline.store.records import Plan, Shard
from pipeline.store.view import StoreView

_AT_ONCE = 100_000


def refuse_without_credentials(view: StoreView, listing: Listing, reads_again: bool) -> None:
    """Refuse a listing if this run would read images whose links were signed, without their credentials.

    A signed listing need not be that of the source: it can name the same links under another name.

    Args:
        view: The store.
        listing: What the source holds now.
        reads_again: Whether images of this source that are embedded already are to be read.

    Raises:
        InputError: If it would. Every one of those images would fail.
    """
    for plan in view.record.plans:
        if plan.source.is_signed:
            is_of_this_source = plan.source.location == listing.source.location
            if listing.source.is_signed:
                _refuse_unknown(view, plan, listing)
            elif any(_unread(view, plan)) or (reads_again and is_of_this_source):
                raise InputError(
                    f"the links of {plan.source.location} were signed when they were planned, and a store does not "
                    f"hold credentials; the links of {listing.source.location} have none: pass a list with fresh "
                    "signed links"
                )


def _refuse_unknown(view: StoreView, plan: Plan, listing: Listing) -> None:
    """Refuse unread images that the listing does not name, and whose credentials this process does not know."""
    unknown = (uri for shard in _unread(view, plan) for uri in _without_credentials(view, shard))
    while some := set(islice(unknown, _AT_ONCE)):
        for item in chain(listing, listing.files):  # what a signed list names without credentials needs none
            some.discard(item.uri)
        if some:
            raise InputError(
                f"images of {plan.source.location} are not embedded yet; their links were signed when they were "
                f"planned, and a store does not hold credentials. {listing.source.location} does not name all of "
                f"them, first {min(some)}: first finish that source, with a list of fresh signed links"
            )


def _unread(view: StoreView, plan: Plan) -> Iterator[Shard]:
    return (shard for shard in plan.shards if not shard.is_dropped and shard.ordinal not in view.committed)


def _without_credentials(view: StoreView, shard: Shard) -> list[str]:
    return KEYRING.lacking(filter(is_url, urls_of(shard, view.record, view.store)))
