"""Sweeps without a model: vectors made by hand, ranked by the real ranking, as real raw files."""

from dataclasses import replace

import numpy as np

from pipeline.source.entry import ImageEntry
from query.evaluation.data.data_set import DataSet
from query.evaluation.ranking.rank import answers
from query.evaluation.raw.data import write_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.images import write_cosines
from query.evaluation.raw.ranks import write_ranks
from query.evaluation.raw.record import write_record
from query.evaluation.raw.timings import Round, write_round
from query.evaluation.record import ConditionRecord, DataRecord, SweepRecord

BASELINE = "none-00000000"


def condition(name, noise, speedup, **more):
    """A condition whose image vectors are the baseline's with so much noise, and which is so much faster."""
    settings = {
        "key": f"{name}-00000000",
        "name": name,
        "series": "own",
        "role": "condition",
        "model": "scenes",
        "policy": {"name": name.removesuffix("+adapter")},
        "image_size": 96,
        "precision": "fp32",
        "fingerprint": f"f-{name}",
        "gmacs": 2.0 / speedup,
        "tokens_kept": 10,
    }
    return ConditionRecord(**settings | more), noise, speedup


CONDITIONS = (
    condition("none", 0.0, 1.0, role="baseline", series="baseline", policy=None),
    condition("mild", 0.02, 1.2),
    condition("fast", 0.5, 2.0),
    condition("fast+adapter", 0.3, 2.0, adapter="scenes"),
    condition("slow", 0.6, 0.9, role="rival", series="rivals"),
)


def unit(vectors_NE):
    return (vectors_NE / np.linalg.norm(vectors_NE, axis=1, keepdims=True)).astype(np.float32)


def captioned(name, num_images, num_captions, num_distractors=0, kind="captions"):
    """Images with captions: caption c is of image c // num_captions. Classes: image n is of class n // num_captions."""
    entries = [ImageEntry(f"{n}.jpg", f"/photos/{n}.jpg", 1, 0) for n in range(num_images + num_distractors)]
    num_queries = num_images * num_captions if kind == "captions" else num_images // num_captions
    pairs = [(query, query // num_captions) for query in range(num_queries)]
    if kind == "classes":
        pairs = sorted((image // num_captions, image) for image in range(num_images))
    return DataSet(
        name=name,
        kind=kind,
        location="/photos",
        entries=entries,
        num_own=num_images,
        titles=[f"text {query}" for query in range(num_queries)],
        prompts=[[f"text {query}"] for query in range(num_queries)],
        pairs_P2=np.array(pairs, dtype=np.int64),
        grades_P=np.ones(len(pairs), dtype=np.float32),
        counts={"num_images": len(entries), "num_own": num_images, "num_distractors": num_distractors},
    )


def write_sweep(root, data_sets, grid=None, conditions=CONDITIONS, rounds=4, seed=0):
    """Write the raw files of a sweep of these conditions over these data sets. Returns its folder and record."""
    folder = SweepFolder(root)
    records = [
        DataRecord(name=d.name, kind=d.kind, location=d.location, sha256=d.sha256, counts=d.counts) for d in data_sets
    ]
    names = [data.name for data in data_sets if "+" not in data.name]
    record = SweepRecord(
        clipsieve_version="0",
        grid={"data": [{"name": name, "scenes": 20} for name in names], "epsilon": 1e-3, **(grid or {})},
        grid_sha256="0",
        commands=["clipsieve sweep grid.yaml --out x", "clipsieve sweep grid.yaml --out x --report-only"],
        environment={},
        environment_key="here",
        data=records,
        conditions=[one for one, *_ in conditions],
    )
    write_record(folder, record)
    for data, found in zip(data_sets, records, strict=True):
        write_data(folder.data(data.name), data)
        for one, noise, _ in conditions:
            _write_answers(folder, record, one, found, data, noise, seed)
    random = np.random.default_rng(seed)
    for number in range(rounds):
        drift = random.uniform(0.5, 2)
        seconds = [drift * random.uniform(0.99, 1.01) / speedup for *_, speedup in conditions]
        keys = [one.key for one, *_ in conditions]
        timed = Round(
            number=number,
            block=0,
            kind="tower",
            keys=keys,
            seconds=seconds,
            num_items=[8] * len(keys),
            environment_key="here",
        )
        write_round(folder.timings, timed)
    return folder, record


def vectors_of(data, noise, seed=0):
    """Vectors of the images under a condition, and of the texts: those of the right images, with noise of their own."""
    random = np.random.default_rng(seed)
    images_NE = unit(random.normal(size=(len(data.entries), 12)))
    texts_QE = np.stack(
        [images_NE[data.pairs_P2[data.pairs_P2[:, 0] == q, 1]].mean(axis=0) for q in range(len(data.titles))]
    )
    texts_QE = unit(texts_QE + 0.15 * random.normal(size=texts_QE.shape))
    return unit(images_NE + noise * np.random.default_rng(seed + 1).normal(size=images_NE.shape)), texts_QE


def both_ways(data, noise, seed=0):
    """The answers of a condition to both tasks."""
    images_NE, texts_QE = vectors_of(data, noise, seed)
    turned = data.pairs_P2[np.lexsort((data.pairs_P2[:, 0], data.pairs_P2[:, 1]))][:, ::-1]
    return {
        "image_retrieval": answers(texts_QE, images_NE, data.pairs_P2),
        "text_retrieval": answers(images_NE[: data.num_own], texts_QE, turned),
    }


def _write_answers(folder, record, one, found, data, noise, seed):
    write_ranks(folder.ranks(one.key, data.name), both_ways(data, noise, seed), head_of(record, one, found, "ranks"))
    cosines_N = (vectors_of(data, noise, seed)[0] * vectors_of(data, 0.0, seed)[0]).sum(axis=1)
    write_cosines(folder.images(one.key, data.name), cosines_N, head_of(record, one, found, "images"))


def renamed(data, name):
    """The same data set under another name."""
    return replace(data, name=name)
