"""Step `end-to-end`: from files of photographs to embeddings, and what limits the rate.

With Ray, it is `clipsieve embed` as users run it. Without, threads of this process decode for one encoder: the same
decoding and encoding, without workers and without a store.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.machine import num_cores
from pipeline.model.encode import fastest_encoder
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import DecoderName
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.decode import decode_all_but_jpegs, decode_batch
from pipeline.pixels.to_device import DeviceLoader
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.folder import list_images
from query.bench.gpu.setup import Row, Setup, Task
from query.bench.gpu.steps.models import random_model
from query.bench.gpu.steps.photographs import write_photographs


@dataclass(frozen=True, slots=True)
class _Case:
    model: str
    policy: str
    decoder: DecoderName
    num_images: int
    is_compiled: bool = False

    @property
    def title(self) -> str:
        return f"{self.model}, {self.policy}, {self.decoder}" + (", compiled" if self.is_compiled else "")


_CASES = (
    _Case("ViT-B-16", "balanced", "pillow", 40_000),
    _Case("ViT-L-14", "balanced", "pillow", 40_000),
    _Case("ViT-L-14", "balanced", "pillow", 40_000, is_compiled=True),
    _Case("ViT-B-16", "balanced", "torchvision", 20_000),
    _Case("ViT-L-14", "none", "pillow", 12_000),
    _Case("ViT-B-16", "none", "pillow", 40_000),
)
_QUICK_CASES = (_Case("scenes", "none", "pillow", 64), _Case("scenes", "balanced", "torchvision", 64))


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step."""
    with ExitStack() as stack:
        runs = _Embedding(setup, stack)
        for case in _QUICK_CASES if setup.is_quick else _CASES:
            yield Task(f"embed, {case.title}", 25, lambda c=case: [runs.embed(c)])
    for case in _QUICK_CASES[:1] if setup.is_quick else _CASES[:1]:
        yield Task(f"one process, {case.title}", 80, lambda c=case: [_in_one_process(setup, c)])


def _photographs(setup: Setup, case: _Case) -> Any:
    has_full_chroma = case.decoder == "torchvision"
    name = f"photographs-{case.num_images}-{'full' if has_full_chroma else 'half'}"
    return write_photographs(setup.folder / name, case.num_images, has_full_chroma)


class _Embedding:
    """Runs of `embed` that share their Ray workers."""

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        self._setup, self._stack, self._pool = setup, stack, None

    def embed(self, case: _Case) -> Row:
        from pipeline.embedding import embed
        from pipeline.settings.embed import EmbedSettings
        from pipeline.workers.pool import worker_pool

        settings = EmbedSettings(
            source=str(_photographs(self._setup, case)),
            out=self._setup.folder / f"store-{case.title.replace(', ', '-')}-{time.time_ns()}",
            model=case.model,
            random_weights=case.model != "scenes",
            policy=case.policy,
            decoder=case.decoder,
            device=self._setup.device,
            compile="on" if case.is_compiled else "off",
        )
        if self._pool is None:
            self._pool = self._stack.enter_context(worker_pool(settings))
        report = embed(settings, pool=self._pool)
        summary, rates = report.summary, report.summary["images_per_second"]
        return {
            "name": f"embed, {case.title}",
            "images": report.num_images,
            "failed_images": report.failed,
            "images_per_second": rates["end_to_end"],
            "decode_alone": rates["decode"],
            "encode_alone": rates["encode"],
            "share_of_ideal": summary["share_of_ideal"],
            "bound_by": summary["bound_by"],
            "sentence": summary["sentence"],
            "warnings": report.warnings,
            "start_s": report.start_s,
            "elapsed_s": summary["elapsed_s"],
            "stage_s": summary["seconds"],
            "device": report.device,
        }


def _in_one_process(setup: Setup, case: _Case) -> Row:
    """Decode on all cores, in threads, for one encoder in this process; then each of the two alone."""
    precision = "bf16" if setup.device == "cuda" else "fp32"
    loaded = random_model(setup, "ViT-B-16" if case.model == "scenes" else case.model, precision)
    encoder = fastest_encoder(loaded, named_policy(case.policy))
    preprocess = encoder.spec.preprocess.model_copy(update={"decoder": case.decoder})
    encoder.spec = encoder.spec.model_copy(update={"preprocess": preprocess})
    entries = list_images(_photographs(setup, case))[0]
    batch_size, cores = setup.scaled(256, 8), num_cores()
    batches = [entries[start : start + batch_size] for start in range(0, len(entries), batch_size)]
    loader = DeviceLoader(encoder, lambda entry: decode_batch([entry], preprocess))
    encoder.encode(loader.load(decode_all_but_jpegs(batches[0], preprocess)).pixels)

    def decoded() -> Iterator[DecodedBatch]:
        def decode(batch: Sequence[ImageEntry]) -> DecodedBatch:
            return decode_all_but_jpegs(batch, preprocess)

        with ThreadPoolExecutor(cores) as threads:
            waiting = [threads.submit(decode, batch) for batch in batches[: 2 * cores]]
            for number in range(len(batches)):
                if number + 2 * cores < len(batches):
                    waiting.append(threads.submit(decode, batches[number + 2 * cores]))
                yield waiting.pop(0).result()

    started = time.perf_counter()
    num_encoded = sum(len(encoder.encode(batch.pixels)) for batch in loader.batches(decoded()))
    elapsed_s = time.perf_counter() - started
    started = time.perf_counter()
    last = [batch for batch in decoded()][-1]
    decode_s = time.perf_counter() - started
    on_device = loader.load(last).pixels
    on_device = on_device if isinstance(on_device, torch.Tensor) else torch.from_numpy(on_device)
    started = time.perf_counter()
    for _ in batches:
        encoder.encode(on_device)
    encode_rate = len(batches) * len(on_device) / (time.perf_counter() - started)
    rates = {"decode": num_encoded / decode_s, "encode": encode_rate}
    # on a CPU, the two share the cores
    ideal = min(rates.values()) if setup.device == "cuda" else 1 / sum(1 / rate for rate in rates.values())
    return {
        "name": f"one process, {case.title}",
        "images": num_encoded,
        "images_per_second": num_encoded / elapsed_s,
        "decode_alone": rates["decode"],
        "encode_alone": rates["encode"],
        "share_of_ideal": num_encoded / elapsed_s / ideal,
        "bound_by": min(rates, key=rates.get),
    }
