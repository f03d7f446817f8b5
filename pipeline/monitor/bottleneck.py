"""Where the time went: compute rates, the limiting stage and a summary sentence from commit markers. Pure functions."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from pipeline.store.records import CommitMarker, Timings

STAGES = tuple(field.name for field in fields(Timings))


def summarize(
    markers: Sequence[CommitMarker], elapsed_s: float, num_workers: int, num_cpus: int, num_gpus: int, has_policy: bool
) -> dict[str, Any]:
    """Summarize what a run cost.

    Args:
        markers: Commit markers of the shards that this run committed.
        elapsed_s: Seconds from the first shard handed out to the last one committed.
        num_workers: Number of encode workers.
        num_cpus: Number of cores in the cluster.
        num_gpus: Number of GPUs in the cluster.
        has_policy: Whether the tower was pruned.

    Returns:
        Rates in images per second: end to end, and what decoding and encoding would each reach alone, on all cores or
        all workers. `share_of_ideal`: the fraction achieved of the best combined rate, which is
        1/(1/decode + 1/encode) if they share the cores, otherwise the slower of the two. Seconds per stage, summed
        over workers. `bound_by`, and a sentence that explains it.
    """
    num_images = sum(marker.num_images for marker in markers)
    seconds = {name: sum(marker.timings_s.get(name, 0.0) for marker in markers) for name in STAGES}
    if not num_images or not elapsed_s:
        return {"num_images": num_images, "elapsed_s": elapsed_s, "seconds": seconds}
    # without GPUs, workers and decode tasks share the cores, so wall time would include each other's work
    encode_s = seconds["encode_s"] / num_workers if num_gpus else seconds["encode_cpu_s"] / num_cpus
    rates = {
        "end_to_end": num_images / elapsed_s,
        "decode": _rate(num_images, seconds["decode_cpu_s"] / num_cpus),
        "encode": _rate(num_images, encode_s),
    }
    ideal = None
    if rates["decode"] and rates["encode"]:
        alone = (rates["decode"], rates["encode"])
        ideal = min(alone) if num_gpus else 1 / (1 / alone[0] + 1 / alone[1])
    bound_by = _bound_by(seconds, rates, num_workers, elapsed_s, num_gpus)
    return {
        "num_images": num_images,
        "elapsed_s": elapsed_s,
        "images_per_second": rates,
        "share_of_ideal": rates["end_to_end"] / ideal if ideal else None,
        "seconds": seconds,
        "bound_by": bound_by,
        "sentence": _sentence(bound_by, rates, num_cpus, num_gpus, has_policy),
    }


def _rate(num_images: int, seconds: float) -> float | None:
    return num_images / seconds if seconds else None


def _bound_by(
    seconds: dict[str, float], rates: dict[str, float | None], num_workers: int, elapsed_s: float, num_gpus: int
) -> str:
    in_turn = {"transfer": seconds["transfer_s"], "write": seconds["write_s"]}
    for stage, spent_s in in_turn.items():
        if spent_s > 0.5 * num_workers * elapsed_s:
            return stage
    decode, encode = rates["decode"], rates["encode"]
    return "decode" if decode and encode and decode < encode else "encode"


def _sentence(bound_by: str, rates: dict[str, float | None], num_cpus: int, num_gpus: int, has_policy: bool) -> str:
    decode, encode = (_shown(rates[name]) for name in ("decode", "encode"))
    cores = f"{num_cpus} core{'s' if num_cpus > 1 else ''}"
    if bound_by in ("transfer", "write"):
        if bound_by == "transfer":
            return "transfer-bound: most of the time goes into bringing pixels to the device; pruning will not help"
        return "write-bound: most of the time goes into writing the store; a faster disk will help, pruning will not"
    if num_gpus:
        if bound_by == "decode":
            return (
                f"decode-bound: {cores} can decode {decode} images/s, the encoder could do {encode}; pruning will not "
                "help without more cores or smaller images"
            )
        more = "a sharper policy or more GPUs will help" if has_policy else "pruning or more GPUs will help"
        return f"encode-bound: the encoder can do {encode} images/s, {cores} could decode {decode}; {more}"
    both = f"{cores} could decode {decode} images/s or encode {encode} images/s, but not both at once"
    if bound_by == "decode":
        return f"decode-bound: {both}; more pruning will save little, more cores or smaller images will help"
    return f"encode-bound: {both}; {'a sharper policy' if has_policy else 'pruning'}, more cores or a GPU will help"


def _shown(rate: float | None) -> str:
    return f"{rate:,.0f}" if rate else "no"
