"""The answers to the queries under each condition: ranks of first hits, and cosines to the unpruned images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.embed_report import EmbedReport
from pipeline.errors import InputError
from pipeline.measure.recall import first_hit_ranks
from pipeline.model.pruning.policy import UNPRUNED
from pipeline.model.spec import EncoderSpec
from pipeline.store.parts import embeddings_of
from query.text import text_encoder


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


def answer(reports: dict[str, EmbedReport], captions: dict[str, list[str]]) -> Answers:
    """Search images by caption, and captions by image, under every condition.

    Raises:
        InputError: If no image with captions could be embedded.
    """
    images = {name: _embeddings_by_key(report) for name, report in reports.items()}
    failed = sorted(captions.keys() - images[UNPRUNED].keys())
    keys = [key for key in captions if key in images[UNPRUNED]]
    if not keys:
        raise InputError(f"none of the {len(captions)} captioned images could be embedded; the first is {failed[0]!r}")
    gallery = keys + sorted(images[UNPRUNED].keys() - captions.keys())
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
    text_vectors = {spec.text_space: text_encoder(spec).encode_texts(texts) for spec in _one_of_each(encoders.values())}
    vectors = {name: np.stack([by_key[key] for key in gallery]) for name, by_key in images.items()}
    bare = encoders[UNPRUNED].text_space
    return Answers(
        ranks={name: ranks(vectors[name], text_vectors[encoders[name].text_space]) for name in reports},
        bare_ranks={
            name: ranks(vectors[name], text_vectors[bare]) for name in reports if encoders[name].text_space != bare
        },
        clusters={"image_retrieval": text_labels, "text_retrieval": image_labels[captioned]},
        cosines={name: float((vectors[name] * vectors[UNPRUNED]).sum(axis=1).mean()) for name in reports},
        counts={"num_images": len(gallery), "num_captions": len(texts), "num_failed_images": len(failed)},
    )


def _one_of_each(specs: Iterable[EncoderSpec]) -> Iterable[EncoderSpec]:
    return {spec.text_space: spec for spec in specs}.values()


def _embeddings_by_key(report: EmbedReport) -> dict[str, np.ndarray]:
    by_key = {}
    for _, table in report.view.parts(["id", "key", "status", "embedding"]):
        key_of = dict(zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True))
        ids, vectors = embeddings_of(table)
        by_key |= {key_of[i]: vector for i, vector in zip(ids.tolist(), vectors, strict=True)}
    return by_key
