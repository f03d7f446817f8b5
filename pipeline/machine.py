"""What this machine can do, and settings that make torch fast on it. Does not import torch: it must be called first."""

import ctypes
import math
import os
import platform
from pathlib import Path

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
CPU_QUOTA_AND_PERIOD = [Path(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period")]
VNNI = ("avx_vnni", "avx512_vnni", "amx_int8")
"""What multiplies 8-bit numbers fast."""

_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", *VNNI)


def prepare_for_torch() -> None:
    """Configure the process for torch. Call this before torch is imported, in every process that runs torch.

    - glibc reuses large buffers instead of returning them to the kernel after every tensor operation. Each return
      causes page faults at the next allocation, which costs most of the speed of a ViT on CPU. Has no effect if the C
      library is not glibc.
    - What `let_threads_sleep` does.
    """
    let_threads_sleep()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler logs our own requests to the terminal
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):
        pass


def let_threads_sleep() -> None:
    """Let idle OpenMP threads sleep instead of spin. Call this before torch or FAISS is imported.

    Spinning is slightly faster on an idle machine, but many times slower if another process needs the cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def num_cores() -> int:
    """Number of CPU cores that this process may use, limited by its affinity and its container's quota."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(present, math.ceil(_cores_of_quota() or present))


def _cores_of_quota() -> float | None:
    """CPU quota of the Linux control group (v2 or v1), in cores. None if there is no limit."""
    try:
        if CPU_MAX.exists():
            quota, period = CPU_MAX.read_text().split()
        else:
            quota, period = (path.read_text().strip() for path in CPU_QUOTA_AND_PERIOD)
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError):
        return None


def cpu_name() -> str:
    """The CPU's model name, as reported by the kernel."""
    return _cpuinfo().get("model name", platform.processor() or platform.machine())


def cpu_features() -> dict[str, bool]:
    """Which of the relevant instruction sets the CPU supports."""
    flags = set(_cpuinfo().get("flags", "").split())
    return {flag: flag in flags for flag in _CPU_FLAGS}


def cache_folder() -> Path:
    """Where measurements of this machine are kept: $CLIPSIEVE_CACHE, else the user's cache directory."""
    asked = os.environ.get("CLIPSIEVE_CACHE")
    if asked:
        return Path(asked).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipsieve"


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}
