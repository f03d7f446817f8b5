"""Step `towers`: images per second of image towers under policies, eager and compiled.

The encoder is the one that embeds collections, on uint8 pixels that are already on the device. Condition `open_clip`
is open_clip's own call on images normalised beforehand. Every row of a model is timed in rounds that run all
conditions of its task; `measured` is the speed-up over `none` in the same mode.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pipeline.measure.timing import interleaved_seconds, median_rates, median_speedup, open_clip_call, peak_bytes
from pipeline.model.device import has_fp8
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.pruning.policy import UNPRUNED, named_policy
from query.bench.gpu.setup import NotAvailable, Row, Setup, Task
from query.bench.gpu.steps.models import random_model

POLICIES = (UNPRUNED, "balanced", "lean", "lossless", "fast")
OPEN_CLIP = "open_clip"
PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 312.0}
"""Dense bf16 arithmetic of a GPU by part of its name, from its data sheet (SXM)."""


@dataclass(frozen=True, slots=True)
class Model:
    """A tower to time."""

    name: str
    image_size: int | None
    compile_s: float
    """Roughly how long one policy takes to compile and to time, with its baseline."""

    batch_size: int = 256

    @property
    def title(self) -> str:
        """Name and input size."""
        return f"{self.name} at {self.image_size} px" if self.image_size else self.name


MODELS = (
    Model("ViT-B-16", None, 20),
    Model("ViT-L-14", None, 30),
    Model("ViT-L-14-336", None, 45),
    Model("ViT-B-16", 800, 40, batch_size=32),  # 256 images of 2,500 tokens do not fit side by side
    Model("ViT-B-16-SigLIP2", None, 20),
    Model("PE-Core-S-16-384", None, 30),
)


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step: first all models without compilation, then each policy compiled, as that takes longer."""
    for model in MODELS:
        tower = _Tower(setup, model)
        conditions = [(name, "eager") for name in (OPEN_CLIP, *POLICIES)]
        yield Task(f"{model.title}", 30, lambda t=tower, c=conditions: t.measure(c, {OPEN_CLIP, *POLICIES}))
        yield Task(f"{model.title}, fp8", 2 * model.compile_s, lambda t=tower: t.measure_fp8())
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
        self._batch_size = setup.scaled(model.batch_size, 2)
        self._loaded: Any = None
        self._calls: dict[tuple[str, str], Callable[[], object]] = {}
        self._gmacs: dict[str, float] = {}
        self._compile_s: dict[tuple[str, str], float] = {}

    def measure(self, conditions: list[tuple[str, str]], wanted: set[str]) -> list[Row]:
        """Time conditions (name, mode) side by side, and give the rows of the wanted names."""
        calls = {condition: self._call(*condition) for condition in conditions}
        memory = {condition: peak_bytes(call, self._setup.device) for condition, call in calls.items()}
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
            row |= {"peak_bytes": memory[condition], "compile_s": self._compile_s.get(condition)}
            row |= self._efficiency(condition, rates)
            rows.append(row)
        return rows

    def measure_fp8(self) -> list[Row]:
        """Time FP8 beside bf16, eager and compiled, unpruned and under `fast`."""
        if self._setup.device != "cuda":
            raise NotAvailable("this run is on the CPU")
        if not has_fp8(torch.device("cuda")):
            raise NotAvailable("this GPU does not multiply FP8 numbers")
        names, modes = (UNPRUNED, "fast"), ("eager", "eager, fp8", "compiled", "compiled, fp8")
        return self.measure([(name, mode) for name in names for mode in modes], set(names))

    def release(self) -> None:
        """Free the memory of the model."""
        self._loaded = None
        self._calls.clear()
        torch._dynamo.reset()
        if self._setup.device == "cuda":
            torch.cuda.empty_cache()

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
        started = time.perf_counter()
        if name == OPEN_CLIP:
            call = open_clip_call(loaded, pixels, is_compiled=mode == "compiled" and not self._setup.is_quick)
        else:
            if mode.endswith("fp8"):
                loaded = replace(loaded, spec=loaded.spec.model_copy(update={"precision": "fp8"}))
            encoder = Encoder(loaded, named_policy(name))
            self._gmacs[name] = encoder.gmacs
            if mode.startswith("compiled"):
                reason = encoder.compile(self._batch_size, "eager" if self._setup.is_quick else "inductor")
                if reason:
                    raise RuntimeError(reason)
            with torch.inference_mode():  # as the pixels of a run
                on_device = encoder.to_device(pixels)

            def call() -> object:
                return encoder.features(on_device)

        for _ in range(self._setup.scaled(4, 1)):  # compile, choose algorithms
            call()
        if mode.startswith("compiled"):
            self._compile_s[name, mode] = time.perf_counter() - started
        return call
