"""Which precision a device computes an image tower in fastest, and by which kernels: measured once, then cached.

Instruction sets are no guide. A CPU can list bf16 and multiply it slower than float32, for example where a hypervisor
hides AMX. So one block of the tower is computed in each way, side by side, in less than three seconds.
"""

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from open_clip.model import convert_weights_to_lp
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from pipeline import __version__
from pipeline.durable.measured import read_measured, remember
from pipeline.machine import VNNI, cpu_features, cpu_name
from pipeline.model.device import DTYPES, device_name, has_fp8
from pipeline.model.precision import EIGHT_BITS, MIN_GAIN, Candidate, Measurement
from pipeline.model.quantization.blocks import Int8Tower
from pipeline.model.quantization.fp8 import Fp8Blocks
from pipeline.model.quantization.observe import Observer
from pipeline.model.towers import onednn
from pipeline.model.towers.families import unprunable_reason, view_of
from pipeline.model.towers.kernels import is_written_out, replacements
from pipeline.model.towers.tower import Tower

MAX_SPREAD = 1.10
"""Rounds whose speed differs by more were disturbed by other load, and are repeated once."""

ROUNDS = 5
MIN_ROUNDS = 3
MAX_S = 3.0
"""Time for a probe. Rounds after the third are left out if they would take longer."""

MAX_CALL_S = 0.04
"""A call computes as many images as take this long in float32, but at most the run's batch; or a part of an image."""

_MIN_TOKENS = 32
_SAMPLE_TOKENS = 256

_FILE = "precision.json"


def measure(visual: nn.Module, device: torch.device, batch_size: int, eight_bits: bool = False) -> Measurement:
    """The fastest way to compute an image tower, from the cache or measured.

    Args:
        visual: The tower in eval mode, in float32 on the device.
        device: Where it runs.
        batch_size: Images per forward pass.
        eight_bits: Measure 8 bits as well. They are never the fastest of the result: they have to be asked for.
    """
    candidates = candidates_of(device)
    # of other towers, no block can be computed on its own
    if (len(candidates) == 1 and not eight_bits) or unprunable_reason(visual):
        return Measurement(chosen=candidates[0 if device.type == "cpu" else 1], speeds={})
    tower = view_of(visual)
    key = _key(tower, device, batch_size)
    if eight_bits:
        candidates, key = [*candidates, *_eight_bits(tower, device)], f"{key}; with 8 bits"
    found = read_measured(_FILE, Measurement).get(key)
    if found is None:
        found = _measure(tower, device, candidates, batch_size)
        if not found.is_disturbed:
            remember(_FILE, key, found)
    return found


def candidates_of(device: torch.device) -> list[Candidate]:
    """Float32, then what the device lists."""
    found = [Candidate(precision="fp32")]
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return [*found, *([Candidate(precision="bf16")] if has_bf16 else []), Candidate(precision="fp16")]
    features = cpu_features()
    if features["avx512_bf16"] or features["amx_bf16"]:
        found.append(Candidate(precision="bf16"))
        if onednn.computes_bf16():
            found.append(Candidate(precision="bf16", kernels="onednn"))
    if features["avx512_fp16"] or features["amx_fp16"]:
        found.append(Candidate(precision="fp16"))
    return found


def slow_8_bits(found: Measurement) -> str | None:
    """One line if 8 bits are hardly faster than float here, or if the CPU has no instructions for them; else None."""
    gain, on_gpu = found.gain_of_8_bits(), "fp8" in found.speeds
    listed = [name for name, has in cpu_features().items() if name in VNNI and has]
    if gain is None or (gain >= MIN_GAIN and (listed or on_gpu)):
        return None
    if on_gpu:
        why = ""
    elif listed:
        why = f" (this CPU lists {' and '.join(listed)})"
    else:
        why = " (this CPU lists neither AVX512-VNNI nor AVX-VNNI)"
    advice = "--precision auto costs none" if gain >= MIN_GAIN else "give --precision auto"
    return (
        f"8 bits were measured at {gain:.2f} times the speed of the fastest float type, and they cost recall{why}; "
        f"{advice}"
    )


def _eight_bits(tower: Tower, device: torch.device) -> list[Candidate]:
    if device.type == "cuda":
        return [Candidate(precision="fp8")] if has_fp8(device) else []
    if not torch.backends.mkldnn.is_available() or tower.parts(tower.blocks[0]) is None:
        return []
    ours = [Candidate(precision="int8", kernels="onednn")] if onednn.computes_bf16() else []
    return [Candidate(precision="int8"), *ours]


def _measure(tower: Tower, device: torch.device, candidates: Sequence[Candidate], batch_size: int) -> Measurement:
    started = time.perf_counter()
    calls = {candidate: _call(tower, candidate, device) for candidate in candidates}
    num_tokens = tower.num_prefix + tower.num_patches
    sample_BTD = torch.randn(1, min(num_tokens, _SAMPLE_TOKENS), tower.width, device=device)
    seconds_per_token = min(_seconds(calls[candidates[0]], sample_BTD) for _ in range(3)) / sample_BTD.shape[1]
    images = MAX_CALL_S / (seconds_per_token * num_tokens)
    if images < 1:
        num_tokens = min(num_tokens, max(_MIN_TOKENS, int(images * num_tokens)))
    x_BTD = torch.randn(min(batch_size, max(1, int(images))), num_tokens, tower.width, device=device)
    seconds = _interleaved(calls, x_BTD, started + MAX_S / 2)
    if _spread(seconds) > MAX_SPREAD:
        again = _interleaved(calls, x_BTD, started + MAX_S)
        is_quiet = _spread(again) <= MAX_SPREAD
        seconds = again if is_quiet else {candidate: [*seconds[candidate], *again[candidate]] for candidate in calls}
    return _result(seconds)


def _result(seconds: Mapping[Candidate, Sequence[float]]) -> Measurement:
    """The result of seconds per round, the first candidate being float32.

    A candidate must be faster than the one chosen before it by `MIN_GAIN` in the median; if other load disturbed the
    rounds, in three of four of them.
    """
    is_disturbed = _spread(seconds) > MAX_SPREAD
    chosen, *others = seconds
    for candidate in (other for other in others if other.precision not in EIGHT_BITS):
        gains = [slow / own for slow, own in zip(seconds[chosen], seconds[candidate], strict=True)]
        if (sorted(gains)[len(gains) // 4] if is_disturbed else statistics.median(gains)) > MIN_GAIN:
            chosen = candidate
    base = next(iter(seconds.values()))
    speeds = {
        str(candidate): round(statistics.median(slow / own for slow, own in zip(base, rounds, strict=True)), 3)
        for candidate, rounds in seconds.items()
    }
    return Measurement(chosen=chosen, speeds=speeds, is_disturbed=is_disturbed)


def _call(tower: Tower, candidate: Candidate, device: torch.device) -> Callable[[Tensor], object]:
    """Compute a block of the tower as `attach` lets it be computed in this way."""
    block, dtype = copy.deepcopy(tower.blocks[0]), DTYPES[candidate.precision]
    if isinstance(tower.module, TimmModel):
        block.to(dtype)  # as open_clip converts towers of timm, norms included
    elif dtype != torch.float32:
        convert_weights_to_lp(block, dtype)
    tower = copy.copy(tower)
    tower.kernels = candidate.kernels
    if candidate.precision in EIGHT_BITS:
        tower.blocks = [block]
        return _call_in_8_bits(tower, candidate)
    for module, forward in replacements(tower, block, device, dtype):
        module.forward = forward
    return partial(tower.run_block, block) if is_written_out(tower, device, dtype) else block


@torch.no_grad()
def _call_in_8_bits(tower: Tower, candidate: Candidate) -> Callable[[Tensor], object]:
    """Compute the only block of a view in 8 bits, with ranges of random tokens: speed does not depend on them."""
    [block] = tower.blocks
    if candidate.precision == "fp8":
        Fp8Blocks(tower)
        return partial(tower.run_block, block)
    observer = Observer(tower)
    observer.run_block(block, torch.randn(1, _MIN_TOKENS, tower.width))
    return partial(Int8Tower(tower, observer.ranges()).run_block, block)


def _interleaved(
    calls: Mapping[Candidate, Callable[[Tensor], object]], x_BTD: Tensor, deadline: float
) -> dict[Candidate, list[float]]:
    """Seconds of each call in each round, after a round to warm up. There are fewer rounds past the deadline."""
    seconds: dict[Candidate, list[float]] = {candidate: [] for candidate in calls}
    inputs = {candidate: x_BTD.to(DTYPES[candidate.precision]) for candidate in calls}
    for number in range(ROUNDS + 1):
        if number > MIN_ROUNDS and time.perf_counter() > deadline:
            break
        for candidate, call in calls.items():
            elapsed_s = _seconds(call, inputs[candidate])
            if number:
                seconds[candidate].append(elapsed_s)
    return seconds


@torch.inference_mode()
def _seconds(call: Callable[[Tensor], object], x_BTD: Tensor) -> float:
    _synchronize(x_BTD.device)
    started = time.perf_counter()
    call(x_BTD)
    _synchronize(x_BTD.device)
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _spread(seconds: Mapping[Candidate, Sequence[float]]) -> float:
    """How much the rounds of a candidate disagree, at worst: the second slowest over the fastest."""
    return max(sorted(rounds)[-2] / min(rounds) for rounds in seconds.values())


def _key(tower: Tower, device: torch.device, batch_size: int) -> str:
    """Everything that the speeds depend on, as text."""
    mlp = max(module.out_features for module in tower.blocks[0].modules() if isinstance(module, nn.Linear))
    where = device_name(device) if device.type == "cuda" else f"{cpu_name()}, {torch.get_num_threads()} threads"
    shape = f"width {tower.width}, {tower.num_heads} heads, MLP {mlp}, {tower.num_patches} patches, batch {batch_size}"
    return f"{where}; {type(tower).__name__}, {shape}; clipsieve {__version__}, torch {torch.__version__}"
