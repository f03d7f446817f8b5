"""The images of a data set: a sample of its own, and distractors from elsewhere."""

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.source.access.naming import is_url, path_of
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.folder import list_images
from query.evaluation.data.data_set import DataSet


def sampled(data: DataSet, num_images: int, seed: int) -> DataSet:
    """A random sample of a data set's images that answer a query, with the queries that they answer.

    Images that answer no query are left out, too, unless the data set has no more than `num_images` in all. Classes
    stay queries without images: they are still wrong answers.

    Args:
        data: The data set, without distractors.
        num_images: Size of the sample; all images that answer a query if there are fewer.
        seed: The same seed gives the same sample of the same data set.
    """
    if num_images >= len(data.entries):
        return data
    answering = np.unique(data.pairs_P2[:, 1]).tolist()
    kept = sorted(random.Random(seed).sample(answering, min(num_images, len(answering))))
    is_kept_P = np.isin(data.pairs_P2[:, 1], kept)
    queries = np.unique(data.pairs_P2[is_kept_P, 0]) if data.kind == "captions" else np.arange(len(data.titles))
    pairs_P2 = data.pairs_P2[is_kept_P]
    return replace(
        data,
        entries=[data.entries[number] for number in kept],
        num_own=len(kept),
        titles=[data.titles[query] for query in queries],
        prompts=[data.prompts[query] for query in queries],
        pairs_P2=np.stack([np.searchsorted(queries, pairs_P2[:, 0]), np.searchsorted(kept, pairs_P2[:, 1])], axis=1),
        grades_P=data.grades_P[is_kept_P],
        counts=data.counts | {"num_not_sampled": len(data.entries) - len(kept)},
    )


def with_distractors(data: DataSet, folders: Sequence[Path]) -> DataSet:
    """A data set with the images of folders added to its gallery.

    The key of an added image is `distractors-N/` and its path in the Nth folder. Files that are in the gallery already
    are not added again, but counted: a folder may hold the data set's own images as well.

    Raises:
        InputError: If a folder cannot be read, adds nothing, or an image of the data set already has such a key.
    """
    entries = list(data.entries)
    seen = {_place(entry) for entry in entries} if folders else set()
    keys = {entry.key for entry in entries}
    num_repeated = 0
    for number, folder in enumerate(folders, start=1):
        found, _ = list_images(folder)
        added = []
        for entry in found:
            if (place := _place(entry)) not in seen:
                seen.add(place)
                added.append(replace(entry, key=f"distractors-{number}/{entry.key}"))
        if not added:
            raise InputError(f"distractors {folder}: all its {len(found)} images are in the gallery already; remove it")
        taken = next((entry.key for entry in added if entry.key in keys), None)
        if taken:
            raise InputError(f"distractors {folder}: the data set has an image {taken!r} itself; rename its folder")
        entries += added
        num_repeated += len(found) - len(added)
    counts = data.counts | ({"num_repeated": num_repeated} if num_repeated else {})
    return replace(data, entries=entries, counts=counts)


def own(data: DataSet) -> DataSet:
    """A data set without its distractors."""
    return counted(replace(data, entries=data.entries[: data.num_own]))


def counted(data: DataSet) -> DataSet:
    """A data set whose counts also say what it holds."""
    answering = np.unique(data.pairs_P2[:, 1])
    counts = {
        "num_images": len(data.entries),
        "num_own": data.num_own,
        "num_distractors": len(data.entries) - data.num_own,
        "num_without_query": data.num_own - len(answering),
        "num_queries": len(data.titles),
    }
    return replace(data, counts=data.counts | counts)


def _place(entry: ImageEntry) -> str:
    """Where an image is, whichever links lead to it."""
    return entry.uri if is_url(entry.uri) or "#" in entry.uri else os.path.realpath(path_of(entry.uri))
