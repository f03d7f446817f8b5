"""Refuse to read signed links again from a list that has no credentials any more."""

from pipeline.errors import InputError
from pipeline.source.listing import Listing
from pipeline.store.records import Plan
from pipeline.store.view import StoreView


def refuse_without_credentials(view: StoreView, listing: Listing, reads_again: bool) -> None:
    """Refuse a listing without credentials if this run would read images whose links were signed.

    Args:
        view: The store.
        listing: What the source holds now.
        reads_again: Whether images of this source that are embedded already are to be read.

    Raises:
        InputError: If it would. Every one of those images would fail.
    """
    if listing.source.is_signed:
        return
    for plan in view.record.plans:
        is_of_this_source = plan.source.location == listing.source.location
        if plan.source.is_signed and (_is_unread(view, plan) or (reads_again and is_of_this_source)):
            raise InputError(
                f"the links of {plan.source.location} were signed when they were planned, and a store does not hold "
                f"credentials; the links of {listing.source.location} have none: pass a list with fresh signed links"
            )


def _is_unread(view: StoreView, plan: Plan) -> bool:
    return any(not shard.is_dropped and shard.ordinal not in view.committed for shard in plan.shards)
