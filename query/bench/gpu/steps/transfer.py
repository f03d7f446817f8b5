"""Step `transfer`: does the next batch reach the device while the previous one is encoded."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from pipeline.measure.timing import interleaved_seconds
from pipeline.model.encode import Encoder, fastest_encoder, sharing_weights
from pipeline.model.pruning.policy import UNPRUNED, named_policy
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.decode import decode_batch
from pipeline.pixels.to_device import DeviceLoader
from pipeline.source.entry import ImageEntry, ImageResult, Status
from query.bench.gpu.setup import Row, Setup, Task, seconds_of
from query.bench.gpu.steps.models import random_model

_POLICIES = (UNPRUNED, "lean")


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step."""
    yield Task("overlap", 30, lambda: _overlap(setup))
    yield Task("copies of a batch", 10, lambda: _copies(setup))


def _overlap(setup: Setup) -> list[Row]:
    """Encode the same batches three ways: already on the device, copied by turns, and copied one ahead."""
    loaded = random_model(setup, "ViT-B-16", "bf16" if setup.device == "cuda" else "fp32")
    preprocess, batch_size = loaded.spec.preprocess, setup.scaled(256, 2)
    count = setup.scaled(40, 2)
    random = np.random.default_rng(0)
    shape = (batch_size, preprocess.height, preprocess.width, 3)
    batches = [random.integers(0, 256, shape, dtype=np.uint8) for _ in range(4)]
    results = [ImageResult.of(ImageEntry(str(slot), "generated:", 0, 0), Status.OK) for slot in range(batch_size)]
    rows = []
    for policy in _POLICIES:
        encoder = fastest_encoder(sharing_weights(loaded), named_policy(policy))
        on_device = [encoder.to_device(batch) for batch in batches]
        loader = DeviceLoader(encoder, lambda entry: decode_batch([entry], preprocess))

        def ahead(encoder: Encoder = encoder, loader: DeviceLoader = loader) -> None:
            decoded = (DecodedBatch(pixels=batches[number % 4], results=results) for number in range(count))
            for batch in loader.batches(decoded):
                encoder.encode(batch.pixels)

        ways: dict[str, Callable[[], object]] = {
            "on the device": lambda e=encoder, b=on_device: [e.encode(b[n % 4]) for n in range(count)],
            "by turns": lambda e=encoder: [e.encode(batches[n % 4]) for n in range(count)],
            "one ahead": ahead,
        }
        rates = {}
        for name, call in ways.items():
            call()
            seconds = min(seconds_of(call)[0] for _ in range(setup.scaled(3, 1)))
            rates[name] = count * batch_size / seconds
        rows += [
            {
                "name": f"ViT-B-16, {policy}, {name}",
                "images_per_second": rate,
                "share_of_encoding": rate / rates["on the device"],
            }
            for name, rate in rates.items()
        ]
    return rows


def _copies(setup: Setup) -> list[Row]:
    batch = np.random.default_rng(0).integers(0, 256, (setup.scaled(256, 8), 224, 224, 3), dtype=np.uint8)
    host = torch.from_numpy(batch)
    ways: dict[str, Callable[[], object]] = {"pageable": lambda: host.to(setup.device)}
    if setup.device == "cuda":
        pinned = host.pin_memory()
        ways["pinned on the way"] = lambda: host.pin_memory().to(setup.device, non_blocking=True)
        ways["pinned before"] = lambda: pinned.to(setup.device, non_blocking=True)
    seconds = interleaved_seconds(ways, setup.scaled(9, 1), setup.device)
    return [
        {"name": f"batch of {len(batch)}, {name}", "ms": 1e3 * sorted(values)[len(values) // 2]}
        for name, values in seconds.items()
    ]
