"""Where a sweep runs: hardware and versions, and a key for what measurements depend on."""

import hashlib
import json
from importlib.metadata import version
from typing import Any

import torch

from indexer.files import faiss_build
from pipeline import __version__
from pipeline.measure.provenance import provenance
from pipeline.model.device import device_name
from query.evaluation.record import OF_ONE_RUN


def environment_of(device: torch.device, batch_size: int) -> dict[str, Any]:
    """Hardware, versions and batch size, as plain values."""
    return {
        **provenance(),
        "clipsieve": __version__,
        "numpy": version("numpy"),
        "pillow": version("pillow"),
        "faiss": faiss_build()["version"],
        "device": device_name(device),
        "batch_size": batch_size,
    }


def key_of(environment: dict[str, Any]) -> str:
    """Hash (16 hex digits) of what a measurement depends on."""
    lasting = {name: value for name, value in environment.items() if name not in OF_ONE_RUN}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:16]
