"""Device, precision and batch size of a process: the defaults that the hardware determines."""

import torch

from pipeline.errors import ConfigError
from pipeline.machine import num_cores
from pipeline.model.precision import EIGHT_BITS, PrecisionChoice
from pipeline.model.spec import DeviceChoice

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,
    "fp8": torch.bfloat16,
}
"""The type of weights and activations; in int8 and fp8, of all that is not an 8-bit product."""


FP8_CAPABILITY = (8, 9)
"""The first GPUs that multiply FP8 numbers: Ada, then Hopper."""


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


def precision_on(device: torch.device, asked: PrecisionChoice) -> PrecisionChoice:
    """The precision on a device: `8bit` becomes int8 on a CPU and fp8 on a GPU; all others stay what they are.

    Raises:
        ConfigError: If 8 bits are asked for that this device does not compute.
    """
    if asked not in EIGHT_BITS:
        return asked
    is_gpu = device.type == "cuda"
    if is_gpu and asked == "int8":
        raise ConfigError(
            f"precision = 'int8': int8 is for CPUs, but this run uses {device_name(device)}; give --precision 8bit, "
            "which is fp8 on a GPU, or --device cpu"
        )
    if not is_gpu and asked == "fp8":
        raise ConfigError(
            "precision = 'fp8': fp8 is for GPUs, but this run uses the CPU; run it on a GPU, or give --precision 8bit, "
            "which is int8 on a CPU"
        )
    if is_gpu and not has_fp8(device):
        major, minor = torch.cuda.get_device_capability(device)
        raise ConfigError(
            f"precision = {asked!r}: fp8 needs an NVIDIA GPU of compute capability 8.9 or later, but "
            f"{device_name(device)} has {major}.{minor}; give --precision bf16, or auto for the fastest that it has"
        )
    if not is_gpu and not torch.backends.mkldnn.is_available():
        raise ConfigError(
            f"precision = {asked!r}: int8 needs oneDNN, which this build of torch lacks; give --precision auto"
        )
    return "fp8" if is_gpu else "int8"


def has_fp8(device: torch.device) -> bool:
    """Whether a GPU multiplies FP8 numbers."""
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY


def default_batch_size(device: torch.device) -> int:
    """Images per forward pass, unless the user sets a number."""
    return 256 if device.type == "cuda" else 32


def device_name(device: torch.device) -> str:
    """The GPU's model name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_device_bytes(device: torch.device) -> int:
    """Peak GPU memory of this process; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
