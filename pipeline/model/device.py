"""TODO."""

from typing import Literal

import torch

from pipeline.errors import ConfigError
from pipeline.machine import has_fast_bf16, num_cores
from pipeline.model.spec import Precision


def peak_device_bytes(device: torch.device) -> int:
    """Most memory that this process held on a GPU so far; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def whole_machine(device: Literal["auto", "cpu", "cuda"] = "auto", num_threads: int | None = None) -> torch.device:
    """Give this process all its cores, and name its fastest device: for measuring, where no worker shares them.

    Args:
        device: What is asked for.
        num_threads: Cores to use, where it shall not be all: the last bits of an embedding depend on it.

    Raises:
        ConfigError: If a GPU is asked for and there is none.
    """
    torch.set_num_threads(num_threads or num_cores())
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': torch sees no GPU; give --device cpu, or see `clipsieve doctor`")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def default_batch_size(device: torch.device) -> int:
    """Images per forward pass where nobody asks for another number."""
    return 256 if device.type == "cuda" else 32


def device_name(device: torch.device) -> str:
    """The GPU's model name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def preferred_precision(device: torch.device) -> Precision:
    """The fastest precision this device computes natively: bf16 where there is hardware for it."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if has_fast_bf16() else "fp32"
