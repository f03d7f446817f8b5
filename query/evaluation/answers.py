"""The answers to the queries under each condition: ranks of first hits, and cosines to the unpruned images."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from pipeline.embed_report import EmbedReport
from pipeline.errors import InputError
from pipeline.measure.recall import first_hit_ranks
from pipeline.model.encode import Encoder
from pipeline.model.pruning.policy import UNPRUNED
from pipeline.monitor.progress import Tick
from pipeline.store.parts import embeddings_of
from query.text import text_encoder

_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answers to the queries. `ranks` holds the rank of each query's first hit, by condition and task."""

    ranks: dict[str, dict[str, np.ndarray]]
    bare_ranks: dict[str, dict[str, np.ndarray]]
    """Ranks with texts embedded without the adapter, for conditions whose adapter changes the text tower."""

    clusters: dict[str, np.ndarray]
    """The image that each query belongs to, by task."""

    cosines: dict[str, float]
    """Mean cosine between the image embeddings and the unpruned ones, by condition."""

    counts: dict[str, int]
    warnings: list[str]


def answer(
    reports: dict[str, EmbedReport],
    captions: dict[str, list[str]],
    listed: Collection[str],
    on_tick: Callable[[str, Tick], None],
) -> Answers:
    """Search images by caption, and captions by image, under every condition.

    Args:
        reports: What `embed` did, by condition.
        captions: Captions by key.
        listed: Keys of the images of this run. A kept store may hold others, which are left out and counted.
        on_tick: Called with the progress of embedding the captions.

    Raises:
        InputError: If no image with captions could be embedded.
    """
    stored = {name: _embeddings_by_key(report) for name, report in reports.items()}
    keys, gallery = _gallery(stored, captions, listed)
    texts = [text for key in keys for text in captions[key]]
    text_labels = np.array([number for number, key in enumerate(keys) for _ in captions[key]])
    image_labels = np.arange(len(gallery))
    captioned = slice(0, len(keys))

    def ranks(vectors_NE: np.ndarray, text_vectors_QE: np.ndarray) -> dict[str, np.ndarray]:
        owned_NE = vectors_NE[captioned]
        return {
            "image_retrieval": first_hit_ranks(text_vectors_QE, text_labels, vectors_NE, image_labels),
            "text_retrieval": first_hit_ranks(owned_NE, image_labels[captioned], text_vectors_QE, text_labels),
        }

    encoders = {name: report.record.encoder for name, report in reports.items()}
    text_encoders = {spec.text_space: text_encoder(spec) for spec in encoders.values()}
    text_vectors = {space: _encode_texts(encoder, texts, on_tick) for space, encoder in text_encoders.items()}
    num_cut, warnings = text_encoders[encoders[UNPRUNED].text_space].tokenize.count_cut(texts, "caption", "captions")
    vectors = {name: np.stack([by_key[key] for key in gallery]) for name, by_key in stored.items()}
    bare = encoders[UNPRUNED].text_space
    return Answers(
        ranks={name: ranks(vectors[name], text_vectors[encoders[name].text_space]) for name in reports},
        bare_ranks={
            name: ranks(vectors[name], text_vectors[bare]) for name in reports if encoders[name].text_space != bare
        },
        clusters={"image_retrieval": text_labels, "text_retrieval": image_labels[captioned]},
        cosines={name: float((vectors[name] * vectors[UNPRUNED]).sum(axis=1).mean()) for name in reports},
        counts={
            "num_images": len(gallery),
            "num_captions": len(texts),
            "num_failed_images": len(listed) - len(gallery),
            "num_left_out": len(set().union(*stored.values()) - set(listed)),
            "num_cut_captions": num_cut,
        },
        warnings=warnings,
    )


def _gallery(
    stored: dict[str, dict[str, np.ndarray]], captions: dict[str, list[str]], listed: Collection[str]
) -> tuple[list[str], list[str]]:
    """Keys of the captioned images, and of all images: those first. The same for all conditions."""
    # an image can fail under one condition only, for example by a timeout
    embedded = set(listed).intersection(*stored.values())
    keys = [key for key in captions if key in embedded]
    if not keys:
        first = next(iter(captions))
        raise InputError(f"none of the {len(captions)} captioned images could be embedded; the first is {first!r}")
    return keys, keys + sorted(embedded - captions.keys())


def _encode_texts(encoder: Encoder, texts: list[str], on_tick: Callable[[str, Tick], None]) -> np.ndarray:
    parts, started = [], time.perf_counter()
    for first in range(0, len(texts), _BATCH):
        parts.append(encoder.encode_texts(texts[first : first + _BATCH], _BATCH))
        num_done = min(first + _BATCH, len(texts))
        on_tick("captions", Tick(num_done, len(texts), 0, num_done / (time.perf_counter() - started)))
    return np.concatenate(parts)


def _embeddings_by_key(report: EmbedReport) -> dict[str, np.ndarray]:
    """The embeddings of a store, without deleted and replaced rows."""
    by_key = {}
    for _, table in report.view.parts(["id", "key", "status", "embedding"]):
        key_of = dict(zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True))
        ids, vectors = embeddings_of(table)
        is_live = ~np.isin(ids, report.view.deleted)
        pairs = zip(ids[is_live].tolist(), vectors[is_live], strict=True)
        by_key |= {key_of[number]: vector for number, vector in pairs}
    return by_key
