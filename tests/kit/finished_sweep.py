"""Finished sweeps with raw files, made of vectors instead of a model."""

import hashlib

import numpy as np

from query.evaluation.grid.read import read_grid
from query.evaluation.metrics.results_of import results_of
from query.evaluation.raw.data import read_data, write_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.images import write_cosines
from query.evaluation.raw.ranks import write_ranks
from query.evaluation.raw.record import write_record
from query.evaluation.raw.timings import Round, write_round
from query.evaluation.record import ConditionRecord, DataRecord, SweepRecord
from tests.kit.answers import answers_of, photographs, unit

NUM_IMAGES, PER_IMAGE = 60, 5
ENVIRONMENT = {"cpu": "a CPU", "cores": 2, "python": "3", "torch": "2", "device": "cpu", "date": "2026-01-01"}
GRID = "data:\n  - name: small\n    scenes: 20\n"


def key_of(name):
    """Key of a condition."""
    return f"{name.replace(' ', '-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class FinishedSweep:
    """The folder of a sweep over one data set: five captions for each of 60 images, none for one more.

    Args:
        root: An empty folder for its files and its grid.
        noise: How much worse each condition's image vectors are; the first condition is the baseline.
        speeds: Speed-up of each condition; those without one are not timed.
        grid: Text of the grid file.
        data: Another data set of as many images.
        roles: Roles of conditions that are neither the baseline nor of a series.
        environment: What it ran on, where it differs from `ENVIRONMENT`.
    """

    def __init__(self, root, noise, *, speeds=None, grid=GRID, data=None, roles=None, environment=None, seed=1):
        root.mkdir(exist_ok=True)
        path = root / "grid.yaml"
        path.write_text(grid)
        self.grid, self.folder = read_grid(path), SweepFolder(root)
        self.data = data or photographs(NUM_IMAGES + 1, PER_IMAGE, {0: "a dog.jpg", 1: "a%20dog.jpg"})
        rng = np.random.default_rng(seed)
        whole_NE = unit(rng.normal(size=(len(self.data.entries), 16)))
        of_texts = whole_NE[np.arange(len(self.data.titles)) // PER_IMAGE]
        self.texts_QE = unit(of_texts + 0.33 * rng.normal(size=of_texts.shape))
        self.images = {name: unit(whole_NE + much * rng.normal(size=whole_NE.shape)) for name, much in noise.items()}
        self.record = self._record(list(noise), roles or {}, ENVIRONMENT | (environment or {}))
        write_record(self.folder, self.record)
        write_data(self.folder.data(self.data.name), self.data)
        self.tables = read_data(self.folder.data(self.data.name))
        self.answers = {name: answers_of(self.texts_QE, vectors, self.tables) for name, vectors in self.images.items()}
        for condition in self.record.conditions:
            self._write(condition)
        self._write_rounds(speeds or {}, rng)

    @property
    def results(self):
        """Its results, computed from its files."""
        return results_of(self.folder)

    def _record(self, names, roles, environment):
        conditions = [
            ConditionRecord(
                key=key_of(name),
                name=name,
                series="series",
                role="baseline" if name == names[0] else roles.get(name, "condition"),
                model="ViT-B-16",
                pretrained="openai",
                image_size=224,
                precision="float32",
                fingerprint=hashlib.sha256(name.encode()).hexdigest(),
                gmacs=17.0,
                tokens_kept=197,
            )
            for name in names
        ]
        counts = {"num_images": len(self.data.entries)}
        data = DataRecord(name=self.data.name, kind="captions", location=".", sha256=self.data.sha256, counts=counts)
        return SweepRecord(
            clipsieve_version="0",
            grid=self.grid.as_json(),
            grid_sha256="0" * 64,
            commands=["clipsieve sweep grid.yaml --out out"],
            environment=environment,
            environment_key=hashlib.sha256(repr(environment).encode()).hexdigest()[:16],
            data=[data],
            conditions=conditions,
        )

    def _write(self, condition):
        (data,), baseline = self.record.data, self.images[self.record.baseline.name]
        path = self.folder.ranks(condition.key, data.name)
        write_ranks(path, self.answers[condition.name], head_of(self.record, condition, data, "ranks"))
        cosines_N = np.einsum("ne,ne->n", self.images[condition.name], baseline).astype(np.float32)
        path = self.folder.images(condition.key, data.name)
        write_cosines(path, cosines_N, head_of(self.record, condition, data, "images"))

    def _write_rounds(self, speeds, rng):
        if not speeds:
            return
        names = list(speeds)
        for number in range(7):
            seconds = [64 / 100 / speeds[name] * float(np.exp(0.01 * rng.normal())) for name in names]
            timed = Round(
                number=number,
                block=0,
                kind="tower",
                keys=[key_of(name) for name in names],
                seconds=seconds,
                num_items=[64] * len(names),
                environment_key=self.record.environment_key,
            )
            write_round(self.folder.timings, timed)
