"""What this machine can do, and how to make torch quick on it. No torch here; called before it is imported."""

import ctypes
import math
import os
import platform
from pathlib import Path

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
CPU_QUOTA_AND_PERIOD = [Path(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period")]
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def prepare_for_torch() -> None:
    """Settle what must be settled before torch is imported: call it first thing in every process that runs torch.

    - glibc shall reuse large buffers instead of returning them to the kernel after every tensor operation. Each return
      costs page faults at the next allocation, and most of the speed of a ViT on CPU. Nothing happens where the C
      library is not glibc.
    - Idle OpenMP threads shall sleep, not spin. Spinning is a little quicker on an idle machine, and many times slower
      where another process wants the cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler talks to the terminal, of things we ask of it
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):
        pass


def num_cores() -> int:
    """Processor cores this process may use: those it may run on, or the share of them that its container is given."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(present, math.ceil(_cores_of_quota() or present))


def _cores_of_quota() -> float | None:
    """Processor time per time that a Linux control group allows, version 2 or 1; None without a limit."""
    try:
        if CPU_MAX.exists():
            quota, period = CPU_MAX.read_text().split()
        else:
            quota, period = (path.read_text().strip() for path in CPU_QUOTA_AND_PERIOD)
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError):
        return None


def cpu_name() -> str:
    """The processor's model name, as the kernel gives it."""
    return _cpuinfo().get("model name", platform.processor() or platform.machine())


def cpu_features() -> dict[str, bool]:
    """Which of the instruction sets that matter here the processor has."""
    flags = set(_cpuinfo().get("flags", "").split())
    return {flag: flag in flags for flag in _CPU_FLAGS}


def has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices in hardware (AMX or AVX-512 bf16)."""
    features = cpu_features()
    return features["amx_bf16"] or features["avx512_bf16"]


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}
