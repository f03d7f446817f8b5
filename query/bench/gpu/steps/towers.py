"""Step `towers`: images per second of image towers under policies, eager, as CUDA graphs, and compiled.

The encoder is the one that embeds collections, on uint8 pixels that are already on the device. Condition `open_clip`
is open_clip's own call on images normalised beforehand. Every row of a model is timed in rounds that run all
conditions of its task; `measured` is the speed-up over `none` in the same mode.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.measure.timing import interleaved_seconds, median_rates, median_speedup, open_clip_call, peak_bytes
from pipeline.model.encode import Encoder, compile_tower, sharing_weights
from pipeline.model.pruning.policy import UNPRUNED, named_policy
from query.bench.gpu.setup import Row, Setup, Task
from query.bench.gpu.steps.models import random_model

POLICIES = (UNPRUNED, "lossless", "balanced", "fast", "lean")
OPEN_CLIP = "open_clip"
PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 312.0}
"""Dense bf16 arithmetic of a GPU by part of its name, from its data sheet (SXM)."""


@dataclass(frozen=True, slots=True)
class Model:
    """A tower to time."""

    name: str
    image_size: int | None
    compile_s: float
    """Roughly how long one policy takes to compile."""

    @property
    def title(self) -> str:
        """Name and input size."""
        return f"{self.name} at {self.image_size} px" if self.image_size else self.name


MODELS = (
    Model("ViT-B-16", None, 30),
    Model("ViT-L-14", None, 55),
    Model("ViT-L-14-336", None, 60),
    Model("ViT-B-16", 800, 40),
    Model("ViT-B-16-SigLIP2", None, 35),
    Model("PE-Core-S-16-384", None, 40),
)


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step: first all models without compilation, then each policy compiled, as that takes longer."""
    modes = ("eager", "graph") if setup.device == "cuda" else ("eager",)
    for model in MODELS:
        tower = _Tower(setup, model)
        conditions = [(OPEN_CLIP, "eager"), *((policy, mode) for mode in modes for policy in POLICIES)]
        yield Task(f"{model.title}", 40, lambda t=tower, c=conditions: t.measure(c, {OPEN_CLIP, *POLICIES}))
        tower.release()
    for model in MODELS[: setup.scaled(len(MODELS), 1)]:
        tower = _Tower(setup, model)
        baselines = [(name, "compiled") for name in (OPEN_CLIP, UNPRUNED)]
        yield Task(
            f"{model.title}, compiled",
            2 * model.compile_s,
            lambda t=tower, b=baselines: t.measure(b, {OPEN_CLIP, UNPRUNED}),
        )
        for policy in POLICIES[1:]:
            yield Task(
                f"{model.title}, {policy} compiled",
                model.compile_s,
                lambda t=tower, b=baselines[1:], p=policy: t.measure([*b, (p, "compiled")], {p}),
            )
        tower.release()


class _Tower:
    """One model, loaded on first use, and the conditions made of it so far."""

    def __init__(self, setup: Setup, model: Model) -> None:
        self._setup, self._model = setup, model
        self._batch_size = setup.scaled(256, 2)
        self._loaded: Any = None
        self._pool: Any = None
        self._calls: dict[tuple[str, str], Callable[[], object]] = {}
        self._gmacs: dict[str, float] = {}

    def measure(self, conditions: list[tuple[str, str]], wanted: set[str]) -> list[Row]:
        """Time conditions (name, mode) side by side, and give the rows of the wanted names."""
        calls = {condition: self._call(*condition) for condition in conditions}
        memory = {condition: self._peak_bytes(condition, call) for condition, call in calls.items()}
        seconds = interleaved_seconds(calls, self._setup.scaled(9, 1), self._setup.device)
        rates = {condition: [self._batch_size / value for value in values] for condition, values in seconds.items()}
        medians = median_rates(rates)
        rows = []
        for condition in conditions:
            name, mode = condition
            if name not in wanted:
                continue
            row = {"name": f"{self._model.title}, {name}, {mode}", "model": self._model.title}
            row |= {"policy": name, "mode": mode, "batch_size": self._batch_size}
            row |= {"images_per_second": medians[condition], "range": [min(rates[condition]), max(rates[condition])]}
            row |= {"peak_bytes": memory[condition]} | self._efficiency(condition, rates)
            rows.append(row)
        return rows

    def release(self) -> None:
        """Free the memory of the model."""
        self._loaded = self._pool = None
        self._calls.clear()
        torch._dynamo.reset()

    def _efficiency(self, condition: tuple[str, str], rates: dict[tuple[str, str], list[float]]) -> Row:
        name, mode = condition
        gmacs, baseline = self._gmacs[UNPRUNED if name == OPEN_CLIP else name], (UNPRUNED, mode)
        tflops = 2 * gmacs * median_rates(rates)[condition] / 1e3
        found: Row = {"gmacs": gmacs, "tflops": tflops}
        if self._setup.device == "cuda":
            gpu = torch.cuda.get_device_name()
            peak = next((value for part, value in PEAK_TFLOPS.items() if part in gpu), None)
            found["share_of_peak"] = tflops / peak if peak else None
        if baseline in rates:
            measured, theoretical = median_speedup(rates, condition, baseline), self._gmacs[UNPRUNED] / gmacs
            found |= {"measured": measured, "theoretical": theoretical, "ratio": measured / theoretical}
        return found

    def _call(self, name: str, mode: str) -> Callable[[], object]:
        if (name, mode) not in self._calls:
            self._calls[name, mode] = self._make(name, mode)
        return self._calls[name, mode]

    def _make(self, name: str, mode: str) -> Callable[[], object]:
        precision = "bf16" if self._setup.device == "cuda" else "fp32"
        if self._loaded is None:
            self._loaded = random_model(self._setup, self._model.name, precision, self._model.image_size)
            self._gmacs[UNPRUNED] = Encoder(sharing_weights(self._loaded), None).gmacs
        preprocess, loaded = self._loaded.spec.preprocess, sharing_weights(self._loaded)
        shape = (self._batch_size, preprocess.height, preprocess.width, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        if name == OPEN_CLIP:
            call = open_clip_call(loaded, pixels, is_compiled=False)
        else:
            encoder = Encoder(loaded, named_policy(name))
            self._gmacs[name] = encoder.gmacs
            if mode == "graph":
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                encoder.replay_graphs(self._pool)
            on_device = torch.from_numpy(pixels).to(self._setup.device)

            def call() -> object:
                return encoder.features(on_device)

        if mode == "compiled":
            if self._setup.is_quick:
                loaded.clip.visual.compile(backend="eager", dynamic=False)
            else:
                compile_tower(loaded)
        for _ in range(self._setup.scaled(4, 1)):  # compile, capture, choose algorithms
            call()
        return call

    def _peak_bytes(self, condition: tuple[str, str], call: Callable[[], object]) -> int | None:
        """Peak memory of one call; None where it was allocated before, when a graph was recorded."""
        replays = self._setup.device == "cuda" and condition[1] != "eager"
        return None if replays else peak_bytes(call, self._setup.device)
