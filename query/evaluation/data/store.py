"""A store as a data set: its images, read again from where they are, with its captions or those of a file."""

from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.source.access.naming import is_url, path_of
from pipeline.source.entry import ImageEntry, Status
from pipeline.source.formats.text import as_text
from pipeline.store.view import StoreView
from query.evaluation.data.captions import read_captions_file
from query.evaluation.data.found import Captioned


def read_store(root: Path, captions: Path | None, split: str) -> Captioned:
    """The images of a store that have embeddings; the others are counted. Deleted images are not among them.

    Args:
        root: The store.
        captions: A captions file, instead of the store's one caption for each image.
        split: Split of Karpathy's JSON.

    Raises:
        StoreError: If the store is missing, damaged or unfinished.
        InputError: If it does not say where its images are, one is missing, or captions do not match.
    """
    view = StoreView.open(root)
    entries, num_failed = [], 0
    for _, table in view.parts(["id", "key", "uri", "caption", "status"]):
        is_live = ~np.isin(table["id"].to_numpy(), view.deleted)
        for row in table.filter(is_live).to_pylist():
            if row["status"] == Status.OK:
                entries.append(ImageEntry(row["key"], row["uri"], 0, 0, caption=row["caption"]))
            else:
                num_failed += 1
    if not entries:
        raise InputError(f"store {root} has no images with embeddings; pass another store")
    entries.sort(key=lambda entry: entry.key)
    _refuse_missing(root, entries, view.record.is_imported)
    texts = {entry.key: [entry.caption] for entry in entries if entry.caption}
    if captions:
        entries, texts = read_captions_file(captions, split, entries, view.record.plans[-1].source.location)
    counts = {"num_without_embedding": num_failed}
    return Captioned(location=as_text(root.absolute()), entries=entries, captions=texts, counts=counts)


def _refuse_missing(root: Path, entries: list[ImageEntry], is_imported: bool) -> None:
    if is_imported:
        bare = [entry for entry in entries if "#" in entry.uri and "row=" in entry.uri.rpartition("#")[2]]
        if bare:
            raise InputError(
                f"store {root} does not say where {len(bare)} of its images are, first {bare[0].key!r}; import it "
                "again with --uri-column, or pass the images themselves"
            )
    missing = [entry for entry in entries if not is_url(entry.uri) and not _file_of(entry.uri).exists()]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(entries)} images of store {root} are no longer there, first "
            f"{missing[0].key!r} at {missing[0].uri}; put them back, or delete them from the store"
        )


def _file_of(uri: str) -> Path:
    return Path(path_of(uri.partition("#")[0]))
