"""From the stores of `evaluate` to raw files and metrics: the answers to the captions under each condition.

Shapes: N images, Q captions, E embedding width.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.embed_report import EmbedReport
from pipeline.errors import InputError
from pipeline.measure.recall import KS
from pipeline.model.encode import Encoder
from pipeline.model.pruning.policy import UNPRUNED
from pipeline.monitor.progress import Tick
from pipeline.source.entry import ImageEntry
from pipeline.store.parts import Status, embeddings_of
from query.evaluation.data.data_set import DataSet
from query.evaluation.data.found import Captioned
from query.evaluation.data.queries import of_captions
from query.evaluation.metrics.measured import Measured
from query.evaluation.ranking.alike import near_duplicate_groups
from query.evaluation.ranking.answers import Answers
from query.evaluation.ranking.both_ways import TEXT_TO_IMAGE, both_ways
from query.evaluation.raw.data import read_data, write_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.head import RawHead
from query.evaluation.raw.images import write_cosines
from query.evaluation.raw.ranks import write_ranks
from query.queries.options import DUPLICATE_COSINE
from query.text import text_encoder

DATA = "images"
"""What raw files call the data set."""
RECALLS = frozenset(f"{TEXT_TO_IMAGE}_recall@{k}" for k in KS)
"""Recall of images by caption: what recovery is measured on."""
_BATCH = 256
_EPSILON = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What is known of every condition after its answers were ranked."""

    data: DataSet
    measured: Measured
    """By name of the condition; it keeps the hits behind `RECALLS`."""
    recall_of_bare_texts: dict[str, dict[str, float]]
    """With texts embedded without the adapter, for conditions whose adapter changes the text tower."""
    counts: dict[str, int]
    warnings: list[str]


def answer(
    reports: Mapping[str, EmbedReport],
    captions: dict[str, list[str]],
    entries: Sequence[ImageEntry],
    folder: SweepFolder,
    on_tick: Callable[[str, Tick], None],
    in_float: Mapping[str, str],
) -> Answered:
    """Search images by caption, and captions by image, under one condition after the other.

    Args:
        reports: What `embed` did, by condition, the unpruned one first.
        captions: Captions by key.
        entries: The images of this run. A kept store may hold others, which are left out and counted.
        folder: Where raw files go.
        on_tick: Called with the progress of embedding the captions.
        in_float: For conditions in 8 bits, the same condition in a float type, with which they are compared, too.

    Raises:
        InputError: If no image with captions could be embedded.
        StoreError: If a raw file cannot be written.
    """
    held = {name: _embedded_keys(report) for name, report in reports.items()}
    data = _data_set(entries, captions, set.intersection(*held.values()))
    write_data(folder.data(DATA), data)
    encoders = {name: report.record.encoder for name, report in reports.items()}
    text_encoders = {spec.text_space: text_encoder(spec) for spec in encoders.values()}
    texts = {space: _encode_texts(encoder, data.titles, on_tick) for space, encoder in text_encoders.items()}
    bare = encoders[UNPRUNED].text_space
    num_cut, warnings = text_encoders[bare].tokenize.count_cut(data.titles, "caption", "captions")
    measured, of_bare = (
        Measured(read_data(folder.data(DATA)), KS, RECALLS, frozenset([*in_float, *in_float.values()])),
        {},
    )
    baseline_NE = _vectors(reports[UNPRUNED], data)
    shared = {"alike_N": near_duplicate_groups(baseline_NE, DUPLICATE_COSINE), "epsilon": _EPSILON}
    for name, report in reports.items():
        images_NE, space = _vectors(report, data), encoders[name].text_space
        by_task = both_ways(texts[space], images_NE, data.pairs_P2, data.num_own, **shared)
        cosines_N = np.einsum("ne,ne->n", images_NE, baseline_NE)
        _write(folder, name, report, data, by_task, cosines_N)
        measured.add(name, by_task, cosines_N)
        if space != bare:
            of_bare[name] = measured.recall(both_ways(texts[bare], images_NE, data.pairs_P2, data.num_own, **shared))
    for name, other in in_float.items():
        measured.compare(name, other, np.einsum("ne,ne->n", *(_vectors(reports[one], data) for one in (name, other))))
    counts = {
        "num_images": len(data.entries),
        "num_captions": len(data.titles),
        "num_failed_images": len(entries) - len(data.entries),
        "num_left_out": len(set().union(*held.values()) - {entry.key for entry in entries}),
        "num_cut_captions": num_cut,
    }
    return Answered(data=data, measured=measured, recall_of_bare_texts=of_bare, counts=counts, warnings=warnings)


def _data_set(entries: Sequence[ImageEntry], captions: dict[str, list[str]], embedded: set[str]) -> DataSet:
    """The images that all conditions have, with all their captions."""
    # an image can fail under one condition only, for example by a timeout
    kept = [entry for entry in entries if entry.key in embedded]
    if not embedded & captions.keys() & {entry.key for entry in entries}:
        first = next(iter(captions))
        raise InputError(f"none of the {len(captions)} captioned images could be embedded; the first is {first!r}")
    found = Captioned(location="", entries=kept, captions=captions)
    return of_captions(DATA, found, captions_per_image=None)


def _encode_texts(encoder: Encoder, texts: Sequence[str], on_tick: Callable[[str, Tick], None]) -> np.ndarray:
    parts, started = [], time.perf_counter()
    for first in range(0, len(texts), _BATCH):
        parts.append(encoder.encode_texts(texts[first : first + _BATCH], _BATCH))
        num_done = min(first + _BATCH, len(texts))
        on_tick("captions", Tick(num_done, len(texts), 0, num_done / (time.perf_counter() - started)))
    return np.concatenate(parts)


def _embedded_keys(report: EmbedReport) -> set[str]:
    """Keys of the embedded images of a store, without deleted and replaced rows."""
    keys: set[str] = set()
    for _, table in report.view.parts(["id", "key", "status"]):
        is_live = (table["status"].to_numpy() == Status.OK) & ~np.isin(table["id"].to_numpy(), report.view.deleted)
        keys.update(table["key"].to_numpy()[is_live].tolist())
    return keys


def _vectors(report: EmbedReport, data: DataSet) -> np.ndarray:
    """The vectors of a data set's images in a store, float32 [N, E]."""
    place = {entry.key: number for number, entry in enumerate(data.entries)}
    vectors_NE: np.ndarray | None = None
    for _, table in report.view.parts(["id", "key", "status", "embedding"]):
        key_of = dict(zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True))
        ids, own_nE = embeddings_of(table)
        is_live = ~np.isin(ids, report.view.deleted)
        places = [place.get(key_of[number], -1) for number in ids[is_live].tolist()]
        if vectors_NE is None:
            vectors_NE = np.empty((len(place), own_nE.shape[1]), np.float32)
        is_asked = np.array(places, np.int64) >= 0
        vectors_NE[np.array(places, np.int64)[is_asked]] = own_nE[is_live][is_asked]
    return vectors_NE


def _write(
    folder: SweepFolder,
    name: str,
    report: EmbedReport,
    data: DataSet,
    by_task: dict[str, Answers],
    cosines_N: np.ndarray,
) -> None:
    """Write what was found under a condition, named as its store is."""
    head = RawHead(
        kind="ranks",
        condition=name,
        fingerprint=report.record.fingerprint,
        data=data.name,
        data_sha256=data.sha256,
        settings={"epsilon": _EPSILON, "duplicate_cosine": DUPLICATE_COSINE},
    )
    write_ranks(folder.ranks(report.view.root.name, data.name), by_task, head)
    write_cosines(
        folder.images(report.view.root.name, data.name), cosines_N, head.model_copy(update={"kind": "images"})
    )
