"""Step `doctor`: what is installed, and how fast the device multiplies matrices and copies memory."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch

from pipeline.measure.timing import interleaved_seconds
from query.bench.gpu.setup import Row, Setup, Task


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step."""
    yield Task("torch", 5, lambda: [_torch_facts(setup)])
    yield Task("matrix products", 10, lambda: _products(setup))
    yield Task("copies", 10, lambda: _copies(setup))
    yield Task("clipsieve doctor", 40, lambda: [_doctor(setup)])


def _torch_facts(setup: Setup) -> Row:
    facts: Row = {"name": "torch", "threads": torch.get_num_threads(), "cuda": torch.version.cuda}
    if setup.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def _products(setup: Setup) -> list[Row]:
    """Rates of large square products on random data: the ceiling of every tower."""
    size = setup.scaled(8192, 256)
    rows = []
    for name, dtype in {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}.items():
        left, right = (torch.randn(size, size, device=setup.device, dtype=dtype) for _ in range(2))
        seconds = _median_s(lambda a=left, b=right: a @ b, setup)
        rows.append({"name": f"product in {name}", "size": size, "tflops": 2 * size**3 / seconds / 1e12})
    return rows


def _copies(setup: Setup) -> list[Row]:
    """Bandwidths; copies within the device count bytes read and written."""
    num_bytes = setup.scaled(2**31, 2**22)
    source = torch.randint(0, 256, (num_bytes,), dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)
    seconds = _median_s(lambda: target.copy_(source), setup)
    rows = [{"name": "copy within the device", "gb_per_s": 2 * num_bytes / seconds / 1e9}]
    if setup.device == "cuda":
        host_bytes = 2**28
        host = {"pageable": torch.empty(host_bytes, dtype=torch.uint8).fill_(1)}
        host["pinned"] = host["pageable"].pin_memory()
        part = target[:host_bytes]
        for kind, memory in host.items():
            seconds = _median_s(lambda m=memory: part.copy_(m, non_blocking=True), setup)
            rows.append({"name": f"copy to the device, {kind}", "gb_per_s": host_bytes / seconds / 1e9})
        seconds = _median_s(lambda: host["pinned"].copy_(part, non_blocking=True), setup)
        rows.append({"name": "copy from the device, pinned", "gb_per_s": host_bytes / seconds / 1e9})
    return rows


def _doctor(setup: Setup) -> Row:
    """What the verb prints, as a user runs it."""
    command = [sys.executable, "-m", "query.cli", "doctor", "--json", "--device", setup.device]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode:
        raise RuntimeError(f"exit code {run.returncode}: {run.stderr[-1000:]}")
    sections = json.loads(run.stdout)
    facts = {"device": sections["what will run where"]["encode"]} | sections["pixels against open_clip's own"]
    return {"name": "clipsieve doctor", "sections": sections} | facts


def _median_s(call: Callable[[], object], setup: Setup) -> float:
    seconds = sorted(interleaved_seconds({"call": call}, setup.scaled(9, 1), setup.device)["call"])
    return seconds[len(seconds) // 2]
