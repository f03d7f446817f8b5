"""Device, precision and batch size of a process: the defaults that the hardware determines."""

import torch

from pipeline.errors import ConfigError
from pipeline.machine import num_cores
from pipeline.model.spec import DeviceChoice

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,
    "fp8": torch.bfloat16,
}
"""The type of weights and activations; in int8 and fp8, of all that is not an 8-bit product."""


def use_all_cores(num_threads: int | None = None) -> None:
    """Let torch use all cores of this process, or `num_threads`; the last bits of an embedding depend on the count."""
    torch.set_num_threads(num_threads or num_cores())


def pick_device(asked: DeviceChoice = "auto") -> torch.device:
    """The requested device; `auto` is a GPU if there is one.

    Raises:
        ConfigError: If a GPU is requested and there is none.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': torch finds no GPU; give --device cpu, or run `clipsieve doctor`")
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def default_batch_size(device: torch.device) -> int:
    """Images per forward pass, unless the user sets a number."""
    return 256 if device.type == "cuda" else 32


def device_name(device: torch.device) -> str:
    """The GPU's model name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_device_bytes(device: torch.device) -> int:
    """Peak GPU memory of this process; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
