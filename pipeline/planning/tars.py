"""What is known of tars only once they are read: whether they have images, and the columns that were named.

Tars have no schema. Without these checks, a mistyped name would be null in every row, without an error.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

from pipeline.errors import InputError
from pipeline.planning.planned import planned_files
from pipeline.source.entry import Source, SourceFile
from pipeline.source.formats.webdataset import read_samples
from pipeline.source.left_out import LeftOut, ReadNotes
from pipeline.source.listing import Listing
from pipeline.store.records import CommitMarker
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
                "if its name is wrong, stop the run and correct it"
            )


def warn_of_kept_captions(
    view: StoreView | None, listing: Listing, files: Iterable[SourceFile], on_warning: Callable[[str], None]
) -> None:
    """Warn if `--caption-column` comes too late for tars of the store. `files` are those that this run embeds."""
    source = listing.source
    if view is None or source.format != "webdataset" or not source.is_caption_column_named:
        return
    sources = {shard.file.key: plan.source for plan in view.record.plans for shard in plan.shards if shard.file}
    kept = {file.key for file in listing.files} - {file.key for file in files}
    num_kept = sum(key in sources and not sources[key].is_caption_column_named for key in kept)
    if num_kept:
        on_warning(
            f"--caption-column {source.caption_column}: {num_kept} tars of {source.location} were planned without it "
            "and keep their captions, for which .txt counts before .json; to read them again, embed into another --out"
        )


def check_tars(view: StoreView, listing: Listing) -> None:
    """Refuse a source of tars without any image, and named columns that no image has. For the end of a run.

    Raises:
        InputError: If there is no image, or such a column.
    """
    location = listing.source.location
    markers = _markers(view, listing)
    if markers and not any(marker is None or marker.num_images + marker.num_removed for marker in markers):
        left_out = LeftOut()
        for marker in markers:
            left_out.add_all(marker.left_out)
        raise InputError(
            f"source {location} contains no images{f' ({left_out.describe()})' if left_out else ''}; name tars that "
            "contain some. If they hold links to images, make them again with tar --dereference"
        )
    unseen = unseen_columns(view, listing)
    if unseen:
        names = ", ".join(f"{flag} {name}" for name, flag in unseen.items())
        raise InputError(
            f"{names}: no image of {location} has such a field in its .json, so nothing was read from it; "
            "correct the name, or leave it out, and embed into another --out"
        )


def unseen_columns(view: StoreView, listing: Listing) -> dict[str, str]:
    """Named columns that no image of a source of tars has, with their flags.

    Empty while a shard of the source is missing or was committed by a version that did not record what it saw.
    """
    named = _named(listing.source)
    markers = _markers(view, listing) if named else []
    if any(marker is None or marker.columns_seen is None for marker in markers):
        return {}
    seen = {name for marker in markers for name in marker.columns_seen}
    return {name: flag for name, flag in named.items() if name not in seen} if markers else {}


def _markers(view: StoreView, listing: Listing) -> list[CommitMarker | None]:
    """The commit marker of each tar of a listing, as it was planned last; None where it is missing."""
    if listing.source.format != "webdataset":
        return []
    listed = {file.uri for file in listing.files}
    shards = (item.shard for file in planned_files(view).values() for item in file.shards)
    return [view.committed.get(shard.ordinal) for shard in shards if shard.is_tar and shard.file.uri in listed]


def _named(source: Source) -> dict[str, str]:
    """The columns that the user named, with their flags."""
    named = dict.fromkeys(source.columns, "--columns")
    return named | ({source.caption_column: "--caption-column"} if source.is_caption_column_named else {})
