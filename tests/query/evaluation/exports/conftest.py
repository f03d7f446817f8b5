"""A sweep small enough to compute by hand: two conditions on one data set, with raw files."""

import numpy as np
import pytest

from query.evaluation.raw.data import read_data, write_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.head import RawHead
from query.evaluation.raw.ranks import write_ranks
from query.evaluation.record import ConditionRecord, DataRecord, SweepRecord
from query.evaluation.results import ConditionResults, Estimate, OnData, Results
from tests.kit.answers import answers_of, photographs, unit

NUM_IMAGES, PER_IMAGE = 60, 5


def condition(key, role="condition", **changed):
    """The record of a condition of a small ViT."""
    values = {
        "key": key,
        "name": key.rpartition("-")[0],
        "series": "series",
        "role": role,
        "model": "ViT-B-16",
        "pretrained": "openai",
        "image_size": 224,
        "precision": "float32",
        "fingerprint": key * 4,
        "gmacs": 17.0,
        "tokens_kept": 197,
    }
    return ConditionRecord(**values | changed)


class Sweep:
    """A finished sweep over one data set: vectors, raw files and results."""

    def __init__(self, root, data):
        rng = np.random.default_rng(1)
        self.folder, self.data = SweepFolder(root), data
        images_NE = unit(rng.normal(size=(len(data.entries), 16)))
        noise_QE = unit(rng.normal(size=(len(data.titles), 16)))
        self.texts_QE = unit(images_NE[np.arange(len(noise_QE)) // PER_IMAGE] + 1.3 * noise_QE)
        self.images = {"whole-11111111": images_NE}
        self.images["pruned-22222222"] = unit(images_NE + 0.15 * rng.normal(size=images_NE.shape))
        write_data(self.folder.data(data.name), data)
        self.tables = read_data(self.folder.data(data.name))
        self.answers = {key: answers_of(self.texts_QE, vectors, self.tables) for key, vectors in self.images.items()}
        for key, by_task in self.answers.items():
            head = RawHead(kind="ranks", condition=key, data=data.name, data_sha256=data.sha256)
            write_ranks(self.folder.ranks(key, data.name), by_task, head)
        self.results = self._results()

    def metrics(self, key):
        """Strict hit rates, by CLIP_benchmark's names."""
        return {
            f"{task}_recall@{k}": float((answers.above_Q + answers.tied_Q < k).mean())
            for task, answers in self.answers[key].items()
            for k in (1, 5, 10)
        }

    def _results(self):
        conditions = [condition("whole-11111111", "baseline"), condition("pruned-22222222", policy={"cut": 1})]
        record = SweepRecord(
            clipsieve_version="0",
            grid={"data": [{"name": self.data.name, "split": "test"}]},
            grid_sha256="0" * 64,
            commands=[],
            environment={},
            environment_key="e",
            data=[
                DataRecord(name=self.data.name, kind=self.data.kind, location=".", sha256=self.data.sha256, counts={})
            ],
            conditions=conditions,
        )
        found = []
        for each in conditions:
            metrics = {name: Estimate(value, value, value) for name, value in self.metrics(each.key).items()}
            metrics["image_retrieval_recall@5(expected)"] = Estimate(0.5, 0.4, 0.6)
            on = OnData(data=self.data.name, metrics=metrics, differences={}, fidelity={})
            found.append(ConditionResults(condition=each, on={self.data.name: on}))
        return Results(record=record, conditions=found, fronts=[])


@pytest.fixture
def sweep(tmp_path):
    """A sweep of captions, five for each of sixty images; one key has a blank, another one a percent sign."""
    return Sweep(tmp_path, photographs(NUM_IMAGES, PER_IMAGE, {0: "a dog.jpg", 1: "a%20dog.jpg"}))
