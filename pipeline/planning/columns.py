"""Named columns of tars, which have no schema: whether any image has them.

A tar is read only when its shard is embedded. A mistyped name would be null in every row, without an error.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from pipeline.errors import InputError
from pipeline.source.entry import Source
from pipeline.source.formats.webdataset import read_samples
from pipeline.source.left_out import ReadNotes
from pipeline.source.listing import Listing
from pipeline.store.view import StoreView

FIRST_SAMPLES = 100


def first_look(listing: Listing, on_warning: Callable[[str], None]) -> None:
    """Warn of named columns that the first samples of a source's first tar do not have. Reads only these samples."""
    source = listing.source
    named = _named(source)
    if not (named and source.format == "webdataset"):
        return
    notes, num_images = ReadNotes(), 0
    with suppress(InputError, OSError):  # the run itself reports it
        for sample in islice(read_samples(listing.files[0], source, notes), FIRST_SAMPLES):
            num_images += len(sample)
    for name, flag in named.items():
        if num_images and name not in notes.columns_seen:
            on_warning(
                f"{flag} {name}: no .json of the first {num_images} images of {listing.files[0].uri} has this field; "
                "if it is mistyped, stop the run and correct it, otherwise it may be null in every row"
            )


def refuse_unseen(view: StoreView, source: Source) -> None:
    """Refuse named columns that no image of a source has, once all its shards are committed.

    Raises:
        InputError: If there are any.
    """
    unseen = unseen_columns(view, source)
    if unseen:
        names = ", ".join(f"{flag} {name}" for name, flag in unseen.items())
        raise InputError(
            f"no image of {source.location} has the named columns ({names}): no .json of theirs has such a field, so "
            "they are null in every row; correct the names and embed into another --out, or leave them out"
        )


def unseen_columns(view: StoreView, source: Source) -> dict[str, str]:
    """Named columns that no image of a source has, with their flags.

    Empty while a shard of the source is missing or was committed by a version that did not record what it saw.
    """
    if source.format != "webdataset":
        return {}
    plans = [plan for plan in view.record.plans if plan.source.location == source.location]
    shards = [shard for plan in plans for shard in plan.shards if not shard.is_dropped]
    markers = [view.committed.get(shard.ordinal) for shard in shards]
    if any(marker is None or marker.columns_seen is None for marker in markers):
        return {}
    if not any(marker.num_images for marker in markers):
        return {}
    seen = {name for marker in markers for name in marker.columns_seen}
    return {name: flag for name, flag in _named(source).items() if name not in seen}


def _named(source: Source) -> dict[str, str]:
    """The columns that the user named, with their flags."""
    named = dict.fromkeys(source.columns, "--columns")
    return named | ({source.caption_column: "--caption-column"} if source.is_caption_column_named else {})
