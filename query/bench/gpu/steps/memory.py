"""Step `memory`: a batch that does not fit is halved until it does, and its embeddings stay the same.

On a GPU, this process is limited to a share of the memory. On a CPU, the tower pretends to run out of it.
"""

from collections.abc import Iterator

import numpy as np
import torch

from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.pruning.policy import UNPRUNED, named_policy
from query.bench.gpu.setup import Row, Setup, Task
from query.bench.gpu.steps.models import random_model

_POLICIES = (UNPRUNED, "balanced")


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step."""
    yield Task("out of memory", 30, lambda: _halvings(setup))


def _halvings(setup: Setup) -> list[Row]:
    loaded = random_model(setup, "ViT-B-16", "bf16" if setup.device == "cuda" else "fp32")
    preprocess, batch_size = loaded.spec.preprocess, setup.scaled(512, 8)
    shape = (batch_size, preprocess.height, preprocess.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = []
    for policy in _POLICIES:
        whole = Encoder(sharing_weights(loaded), named_policy(policy)).encode(pixels)
        encoder = Encoder(sharing_weights(loaded), named_policy(policy))
        _limit(setup, encoder, batch_size)
        try:
            parts = [encoder.encode(pixels) for _ in range(3)]
        finally:
            _unlimit(setup)
        cosines = [float(np.einsum("be,be->b", whole, part).min()) for part in parts]
        if not encoder.num_halvings:
            raise AssertionError(f"a batch of {batch_size} fitted into the limited memory, so nothing was provoked")
        if min(cosines) < 0.999:
            raise AssertionError(f"embeddings changed when the batch was halved: cosine {min(cosines):.6f}")
        rows.append(
            {
                "name": f"ViT-B-16, {policy}",
                "batch_size": batch_size,
                "num_halvings": encoder.num_halvings,
                "micro_batch": encoder.micro_batch,
                "minimum_cosine": min(cosines),
            }
        )
        del encoder
    return rows


def _limit(setup: Setup, encoder: Encoder, batch_size: int) -> None:
    """Leave too little memory for the batch: what is held now, and a third of what the batch would add."""
    if setup.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        probe = encoder.features  # the peak of a small batch, scaled to the whole one
        size = encoder.spec.preprocess
        probe(torch.zeros(16, size.height, size.width, 3, dtype=torch.uint8, device="cuda"))
        added = (torch.cuda.max_memory_allocated() - held) * batch_size // 16
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + added // 3) / total)
        return
    run = encoder.features

    def limited(pixels_BHWC: torch.Tensor) -> torch.Tensor:
        if len(pixels_BHWC) > batch_size // 3:
            raise torch.OutOfMemoryError("pretended")
        return run(pixels_BHWC)

    encoder.features = limited


def _unlimit(setup: Setup) -> None:
    if setup.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
