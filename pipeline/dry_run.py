"""`clipsieve embed --dry-run`: estimate a run from its listing and a short measurement. Writes nothing."""

import math
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.choices import known_calibration, listed, precision_of, refuse_other_choices
from pipeline.errors import InputError
from pipeline.machine import num_cores
from pipeline.model.device import default_batch_size, peak_device_bytes, pick_device, use_all_cores
from pipeline.model.encode import Encoder, fastest_encoder, policy_or_unpruned
from pipeline.model.load import LoadedModel, load_model
from pipeline.model.precision import PrecisionChoice
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.spec import EncoderSpec
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.decode import decode_batch
from pipeline.pixels.to_device import decode_for
from pipeline.planning.extend import find_changes
from pipeline.planning.shards import shard_capacity
from pipeline.planning.tars import first_look
from pipeline.settings.embed import EmbedSettings
from pipeline.source.entry import ImageEntry, ImageResult, Source
from pipeline.source.listing import Listing
from pipeline.source.reading import read_file
from pipeline.source.sample import Sample
from pipeline.store.layout import Store
from pipeline.store.parts import part_table, write_part
from pipeline.store.view import StoreView
from pipeline.workers.calibrate import measured, other_policy, with_known
from pipeline.workers.messages import Calibrating, KnownCalibration
from pipeline.workers.session import cluster_resources

if TYPE_CHECKING:
    import torch

PROBE_IMAGES = 256
PROBE_ROUNDS = 3


def estimate(settings: EmbedSettings) -> dict[str, dict[str, str]]:
    """Estimate what embedding a source would cost.

    Decoding and encoding are measured on this machine, one after the other. The sample is spread over the source, or
    taken from the first files if it is tars or Parquet. With `--ray-address`, the rates are scaled to the cluster's
    cores and GPUs. The figures are for the whole source; how much of it the store lacks is said as well.

    Returns:
        Names and figures by section, as text.

    Raises:
        ClipsieveError: Whatever the run itself would raise at its start.
    """
    listing = listed(settings)
    news, known = _news(settings, listing)
    sample = list(islice(_sample(listing), PROBE_IMAGES))
    if not sample:
        raise InputError(f"source {listing.source.location} contains no images; name tars or files that contain some")
    probe = _probe(settings, listing, sample, known)
    gpus_here = int(probe.device.type == "cuda")
    cpus, gpus = cluster_resources(settings.ray_address) or (num_cores(), gpus_here)
    gpus = 0 if settings.device == "cpu" else gpus
    num_images = _num_images(listing, sample)
    workers = settings.workers or gpus or cpus
    capacity = settings.shard_size or shard_capacity(num_images, workers)
    about = "" if listing.num_images is not None else "about "
    warnings: list[str] = []
    first_look(listing, warnings.append)
    return {
        "source": {
            "what": f"{listing.source.format} {listing.source.location}",
            "images": f"{about}{num_images:,}",
            "bytes": _size(listing.num_bytes) if listing.num_bytes else "unknown until they are read",
            "shards": f"{_num_shards(listing, num_images, capacity):,}",
            "failed in the sample": f"{probe.num_failed} of {len(sample)}",
            **news,
            **({"warning": "; ".join(warnings)} if warnings else {}),
        },
        "run": _run_section(probe, num_images, cpus, gpus),
        "needs": _needs_section(probe, num_images, workers),
    }


@dataclass(frozen=True, slots=True)
class _Known:
    """What a run knows of its encoder before it loads the model."""

    precision: PrecisionChoice
    calibration: KnownCalibration | None


def _news(settings: EmbedSettings, listing: Listing) -> tuple[dict[str, str], _Known]:
    """What a run would add to a store that exists, and what it knows at its start. Refuses what it would refuse."""
    store = Store(settings.out)
    if not (store.record_path.exists() or settings.retry):
        known = _Known(settings.precision, known_calibration(settings, None))
        find_changes(None, listing)
        return {}, known
    view = StoreView.now(store, store.read_record())
    refuse_other_choices(settings, listing, view)
    known = _Known(precision_of(settings, view.record), known_calibration(settings, view))
    changes = find_changes(view, listing, **settings.comparison())
    num_new, num_again = (sum(1 for _ in images) for images in (changes.new, changes.again))
    new = f"{num_new:,} images" if listing.entries is not None else f"{len(changes.files):,} files"
    return {"not in the store": new} | ({"to try again": f"{num_again:,} images"} if settings.retry else {}), known


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """Result of a short measurement on this machine. Seconds and bytes are per image."""

    spec: EncoderSpec
    warning: str | None
    device: "torch.device"
    num_failed: int
    decode_s: float
    encode_s: float
    row_bytes: float


def _probe(settings: EmbedSettings, listing: Listing, sample: list[ImageEntry], known: _Known) -> _Probe:
    use_all_cores()
    device = pick_device(settings.device)
    loaded = load_model(settings.model_source(), known.precision, device, settings.batch_size)
    policy, warning = policy_or_unpruned(loaded, settings.pruning_policy(), settings.policy_is_default)
    doubt = None
    if known.calibration:
        loaded = with_known(loaded, known.calibration)
        doubt = other_policy(loaded, policy)
    elif loaded.spec.precision == "int8":
        loaded, calibrating = _calibrated(settings, loaded, policy, listing.source, sample)
        doubt = calibrating.warning
    encoder = fastest_encoder(loaded, policy)
    batch_size = min(settings.batch_size or default_batch_size(device), len(sample))
    started = time.process_time()
    batch = decode_for(encoder, sample, settings.pixel_limit)
    decode_s = (time.process_time() - started) / len(sample)
    return _Probe(
        spec=encoder.spec,
        warning="; ".join(filter(None, [warning, doubt])) or None,
        device=device,
        num_failed=batch.num_failed,
        decode_s=decode_s,
        encode_s=_encode_seconds(encoder, batch.pixels[:batch_size]),
        row_bytes=_row_bytes(encoder, batch.results, listing),
    )


def _calibrated(
    settings: EmbedSettings, loaded: LoadedModel, policy: PruningPolicy | None, source: Source, probed: list[ImageEntry]
) -> tuple[LoadedModel, Calibrating]:
    """Calibrate on the images of the probe. The run itself chooses others, which changes neither figure."""
    preprocess = loaded.spec.preprocess.model_copy(update={"decoder": "pillow"})

    def decode(batches: Iterable[Sequence[ImageEntry]]) -> Iterator[DecodedBatch]:
        return (decode_batch(batch, preprocess, settings.pixel_limit) for batch in batches)

    return measured(loaded, policy, Sample(source=source, entries=tuple(probed)), decode, settings.min_cosine)


def _run_section(probe: _Probe, num_images: int, cpus: int, gpus: int) -> dict[str, str]:
    decode_rate = cpus / probe.decode_s
    # without GPUs, the measured encoding used all cores of this machine, and decoding shares them
    encode_rate = gpus / probe.encode_s if gpus else cpus / num_cores() / probe.encode_s
    rate = min(decode_rate, encode_rate) if gpus else 1 / (1 / decode_rate + 1 / encode_rate)
    section = {
        "encoder": probe.spec.describe(),
        "decode": f"{decode_rate:,.0f} images/s on {cpus} cores",
        "encode": f"{encode_rate:,.0f} images/s on {f'{gpus} GPUs' if gpus else 'the same cores'}",
        "end to end": f"about {rate:,.0f} images/s",
        "time": _duration(num_images / rate),
    }
    return section | ({"warning": probe.warning} if probe.warning else {})


def _needs_section(probe: _Probe, num_images: int, workers: int) -> dict[str, str]:
    index_bytes = num_images * (4 * probe.spec.embedding_dim + 8)
    memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "Parquet": _size(num_images * probe.row_bytes),
        "index": f"{_size(index_bytes)} on disk, and the same in RAM or VRAM to search",
        "RAM": f"{_size(memory_bytes)} per worker, {workers} workers",
        "VRAM": _size(peak_device_bytes(probe.device)) if probe.device.type == "cuda" else "none",
    }


def _num_images(listing: Listing, sample: list[ImageEntry]) -> int:
    if listing.num_images is not None:
        return listing.num_images
    mean_bytes = statistics.fmean(len(entry.data or b"") for entry in sample)
    return round(listing.num_bytes / mean_bytes) if mean_bytes else 0


def _sample(listing: Listing) -> Iterator[ImageEntry]:
    if listing.entries is not None:
        step = max(1, (listing.num_images or 0) // PROBE_IMAGES)
        return islice(listing, 0, None, step)
    return chain.from_iterable(read_file(file, listing.source, 0, file.num_rows or 0) for file in listing.files)


def _encode_seconds(encoder: Encoder, pixels_BHWC: "torch.Tensor") -> float:
    """Seconds per image: the median of several rounds after a warm-up round."""
    seconds = []
    for _ in range(PROBE_ROUNDS + 1):
        started = time.perf_counter()
        encoder.encode(pixels_BHWC)
        seconds.append((time.perf_counter() - started) / len(pixels_BHWC))
    return statistics.median(seconds[1:])


def _row_bytes(encoder: Encoder, results: Sequence[ImageResult], listing: Listing) -> float:
    random = np.random.default_rng(0).normal(size=(len(results), encoder.spec.embedding_dim))
    unit = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)  # as incompressible as real ones
    table = part_table(
        results,
        unit,
        first_id=0,
        tokens_kept=encoder.tokens_kept,
        spec=encoder.spec,
        shard_id="0" * 32,
        columns=listing.source.columns,
    )
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        write_part(Path(file.name), table)
        return Path(file.name).stat().st_size / len(results)


def _num_shards(listing: Listing, num_images: int, capacity: int) -> int:
    if listing.entries is not None:
        return math.ceil(num_images / capacity)
    return sum(1 if file.num_rows is None else math.ceil(file.num_rows / capacity) for file in listing.files)


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.2f} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"
