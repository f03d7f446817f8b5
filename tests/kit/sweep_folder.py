"""A sweep folder whose raw ranks and images are real files, for results made by hand."""

import numpy as np
from PIL import Image, ImageDraw

from pipeline.source.entry import ImageEntry
from query.evaluation.data.data_set import DataSet
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import write_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.head import RawHead
from query.evaluation.raw.ranks import write_ranks

NUM_IMAGES, PER_IMAGE = 12, 2


def made_folder(root, results, num_hits=10):
    """Write raw ranks of every condition and small pictures; the same every time."""
    folder, images = SweepFolder(root), root / "photos"
    images.mkdir(parents=True)
    entries = [_drawn(images / f"{number:02}.png", number) for number in range(NUM_IMAGES)]
    num_queries = NUM_IMAGES * PER_IMAGE
    pairs = np.stack([np.arange(num_queries), np.arange(num_queries) // PER_IMAGE], axis=1)
    for number, record in enumerate(results.record.data):
        data = DataSet(
            name=record.name, kind="captions", location=record.location, entries=entries, num_own=NUM_IMAGES,
            titles=[f"shape {q // PER_IMAGE} in words {q % PER_IMAGE} <b>&" for q in range(num_queries)],
            prompts=[[f"shape {q}"] for q in range(num_queries)], pairs_P2=pairs.astype(np.int64),
            grades_P=np.ones(num_queries, np.float32), counts=record.counts,
        )  # fmt: skip
        write_data(folder.data(record.name), data)
        for place, found in enumerate(results.conditions):
            if record.name in found.on:
                random = np.random.default_rng([number, place])
                head = RawHead(kind="ranks", condition=found.condition.key, data=record.name)
                write_ranks(folder.ranks(found.condition.key, record.name), {
                    "image_retrieval": _answers(pairs, random, noise=0.0 if place == 0 else 0.9, num_hits=num_hits),
                }, head)  # fmt: skip
    return folder


def add_kept_patches(folder, key, count=3):
    """Pictures of kept patches, as large as real ones."""
    folder.pictures.mkdir()
    for number in range(1, count + 1):
        noise = np.random.default_rng(number).integers(0, 255, (40, 140, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((1400, 400)).save(folder.pictures / f"{key}-{number}.png")


def _drawn(path, number):
    image = Image.new("RGB", (200 + 10 * number, 160), (40 + 15 * number, 90, 220 - 15 * number))
    ImageDraw.Draw(image).ellipse((20, 20, 40 + 10 * number, 120), fill="white")
    image.save(path)
    return ImageEntry(f"{path.name}", str(path), path.stat().st_size, 0)


def _answers(pairs, random, noise, num_hits):
    """Exact answers of drawn scores: the right image leads by a margin that noise can undo."""
    num_queries = len(pairs)
    scores = 0.1 * np.random.default_rng(0).random((num_queries, NUM_IMAGES))
    scores[pairs[:, 0], pairs[:, 1]] += 0.3
    scores = (scores + noise * (random.random(scores.shape) - 0.5)).astype(np.float32)
    best = scores[pairs[:, 0], pairs[:, 1]]
    above = (scores > best[:, None]).sum(axis=1).astype(np.int32)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :num_hits].astype(np.int32)
    zeros = np.zeros(num_queries, np.int32)
    return Answers(best_Q=best, above_Q=above, tied_Q=zeros, tied_right_Q=zeros + 1, above_epsilon_Q=above,
                   unlike_Q=above + 1, ids_QK=ids, scores_QK=np.take_along_axis(scores, ids, axis=1))  # fmt: skip
