"""Step `kernels`: which kernels the time of a tower goes to, unpruned and pruned."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.pruning.policy import UNPRUNED, named_policy
from query.bench.gpu.setup import Row, Setup, Task
from query.bench.gpu.steps.models import random_model

_POLICIES = (UNPRUNED, "lossless", "balanced", "lean")
_LONGEST = 30


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step."""
    for name in ("ViT-B-16", "ViT-L-14")[: setup.scaled(2, 1)]:
        yield Task(name, 25, lambda n=name: _kernels(setup, n))


def _kernels(setup: Setup, name: str) -> list[Row]:
    is_cuda = setup.device == "cuda"
    loaded = random_model(setup, name, "bf16" if is_cuda else "fp32")
    preprocess, batch_size = loaded.spec.preprocess, setup.scaled(256, 2)
    shape = (batch_size, preprocess.height, preprocess.width, 3)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).to(setup.device)
    kind = DeviceType.CUDA if is_cuda else DeviceType.CPU
    rows = []
    for policy in _POLICIES:
        encoder = Encoder(sharing_weights(loaded), named_policy(policy))
        for _ in range(setup.scaled(3, 1)):
            encoder.features(pixels)
        activity = ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU
        with profile(activities=[activity]) as profiler:
            encoder.features(pixels)
            if is_cuda:
                torch.cuda.synchronize()
        events = [event for event in profiler.key_averages() if event.device_type == kind]
        milliseconds = {
            event.key: (event.self_device_time_total if is_cuda else event.self_cpu_time_total) / 1e3
            for event in events
        }
        counts = {event.key: event.count for event in events}
        longest = sorted(milliseconds, key=milliseconds.get, reverse=True)[:_LONGEST]
        rows.append(
            {
                "name": f"{name}, {policy}",
                "batch_size": batch_size,
                "total_ms": sum(milliseconds.values()),
                "num_kernels": sum(counts.values()),
                "kernels": [
                    {"ms": round(milliseconds[key], 4), "count": counts[key], "kernel": key[:160]} for key in longest
                ],
            }
        )
    return rows
