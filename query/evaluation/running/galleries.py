"""The galleries of a sweep: each data set as it is measured, and who is measured on it.

Shapes: N images, Q queries, P pairs of a query and an image that answers it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry
from query.evaluation.data.data_set import DataSet
from query.evaluation.data.gallery import counted, own
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.record import WITH_DISTRACTORS, DataRecord
from query.evaluation.running.kept.blocks import Blocks
from query.evaluation.running.kept.images import Image, hash_of


@dataclass(frozen=True, slots=True)
class Part:
    """Images that are embedded together, and whose vectors are kept under one name."""

    name: str
    entries: Sequence[ImageEntry]
    images_sha256: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """A data set as it is measured: without the images that cannot be decoded and the queries that only they answer."""

    data: DataSet
    parts: Sequence[Part]
    """Its images, in the order of the gallery."""
    keys: frozenset[str]
    """The conditions that are measured on it."""

    @property
    def images_sha256(self) -> str:
        """Hash of what the files of all its images hold."""
        return self.parts[0].images_sha256 if len(self.parts) == 1 else "+".join(p.images_sha256 for p in self.parts)

    def record(self, timed_on: str) -> DataRecord:
        """As `sweep.json` holds it."""
        data = self.data
        return DataRecord(
            name=data.name,
            kind=data.kind,
            location=data.location,
            sha256=data.sha256,
            images_sha256=self.images_sha256,
            counts=data.counts,
            images_per_second_of=timed_on,
        )

    def vectors(self, folder: SweepFolder, key: str) -> np.ndarray:
        """The vectors of its images under a condition, float32 [N, E].

        Raises:
            StoreError: If a block is missing or damaged.
        """
        return np.concatenate([blocks_of(folder, key, part).read() for part in self.parts])


def blocks_of(folder: SweepFolder, key: str, part: Part) -> Blocks:
    """Where the vectors of a part are under a condition."""
    return Blocks(folder.vectors(key, part.name), len(part.entries))


def galleries_of(
    data: DataSet, images: Sequence[Image], everyone: Collection[str], decomposed: Collection[str]
) -> list[Gallery]:
    """The galleries of a data set: its own images; and with its distractors, where it has some and they are asked for.

    Args:
        data: The data set.
        images: What is known of its images [N].
        everyone: Keys of all conditions.
        decomposed: Keys of the conditions that meet the distractors.

    Raises:
        InputError: If none of the images that answer a query can be decoded.
    """
    is_gone_N = np.array([image.error is not None for image in images])
    alive = [image for image in images if image.error is None]
    plain = without(own(data), is_gone_N[: data.num_own])
    if not len(plain.pairs_P2):
        first = next((image for image in images if image.error), None)
        reason = f"; the first that cannot be decoded is {first.key!r}: {first.error}" if first else ""
        raise InputError(f"data set {data.name!r}: no image that answers a query is left of {len(images)}{reason}")
    parts = [Part(data.name, plain.entries, hash_of(alive[: plain.num_own]))]
    galleries = [Gallery(plain, parts, frozenset(everyone))]
    whole = without(data, is_gone_N)
    if whole.num_own < len(whole.entries) and decomposed:
        name = f"{data.name}{WITH_DISTRACTORS}"
        parts = [*parts, Part(name, whole.entries[whole.num_own :], hash_of(alive[whole.num_own :]))]
        galleries.append(Gallery(replace(whole, name=name), parts, frozenset(decomposed)))
    return galleries


def without(data: DataSet, is_gone_N: np.ndarray) -> DataSet:
    """A data set without some of its images, and without the captions that only those answer. Classes stay."""
    place_N = np.cumsum(~is_gone_N) - 1
    is_left_P = ~is_gone_N[data.pairs_P2[:, 1]]
    num_right_Q = np.bincount(data.pairs_P2[:, 0], minlength=len(data.titles))
    num_left_Q = np.bincount(data.pairs_P2[is_left_P, 0], minlength=len(data.titles))
    is_asked_Q = (num_left_Q > 0) | (num_right_Q == 0) | (data.kind == "classes")
    asked, place_Q = np.flatnonzero(is_asked_Q), np.cumsum(is_asked_Q) - 1
    pairs_P2 = data.pairs_P2[is_left_P]
    left = replace(
        data,
        entries=[entry for entry, is_gone in zip(data.entries, is_gone_N, strict=True) if not is_gone],
        num_own=int((~is_gone_N[: data.num_own]).sum()),
        titles=[data.titles[query] for query in asked],
        prompts=[data.prompts[query] for query in asked],
        pairs_P2=np.stack([place_Q[pairs_P2[:, 0]], place_N[pairs_P2[:, 1]]], axis=1).astype(np.int64),
        grades_P=data.grades_P[is_left_P],
        counts=data.counts | {"num_failed": int(is_gone_N.sum())},
    )
    return counted(left)
