"""`clipsieve bench policies`: recall against speed for many policies on your own captioned images, in one process.

A grid (YAML) lists series of policies. Every point is embedded once for its recall, and timed side by side with all
others, so that policies can be compared at equal measured speed. `evaluate` runs the whole chain for a few policies;
this runs only the towers, for many.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.measure.provenance import provenance
from pipeline.measure.recall import first_hit_ranks, recall_metrics, recall_sum
from pipeline.measure.timing import images_per_second, median_rates, median_speedup
from pipeline.model.device import default_batch_size, device_name, pick_device, use_all_cores
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import LoadedModel, load_model
from pipeline.model.pruning.policy import UNPRUNED
from pipeline.monitor.progress import Tick
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.captions import list_captioned
from query.bench.grid import Point, read_grid
from query.settings import BenchPoliciesSettings
from query.text import text_encoder

EQUAL_SPEEDS = (1.5, 2.0)


def bench_policies(
    settings: BenchPoliciesSettings, on_tick: Callable[[str, Tick], None] = lambda name, tick: None
) -> dict[str, Any]:
    """Measure every point of a grid.

    Returns:
        The results as written to JSON: one entry per point, the unpruned tower first.

    Raises:
        ConfigError: If the grid is invalid, the device is not available, or a policy does not fit the tower.
        InputError: If captions and images do not match, or an image cannot be decoded.
    """
    points = [Point(UNPRUNED, UNPRUNED, None), *read_grid(settings.grid)]
    entries, captions = _captioned(settings)
    models = _Models(settings, entries)
    texts = [text for entry in entries for text in captions[entry.key]]
    labels = np.array([number for number, entry in enumerate(entries) for _ in captions[entry.key]])
    reader = text_encoder(models.loaded(None).spec)
    num_cut, warnings = reader.tokenize.count_cut(texts, "caption", "captions")
    text_vectors = reader.encode_texts(texts)
    images = np.arange(len(entries))
    encoders, results = [], []  # known by their places: series and policies may share names
    for number, point in enumerate(points):
        encoder = Encoder(sharing_weights(models.loaded(point.image_size)), point.policy)
        vectors = _encode(encoder, models.pixels(point.image_size), models.batch_size)
        ranks = {
            "image_retrieval": first_hit_ranks(text_vectors, labels, vectors, images),
            "text_retrieval": first_hit_ranks(vectors, images, text_vectors, labels),
        }
        policy = point.policy.model_dump() if point.policy else None
        results.append({"series": point.series, "name": point.name, "policy": policy, "image_size": point.image_size})
        results[-1] |= {"metrics": recall_metrics(ranks), "gmacs": encoder.gmacs}
        encoders.append((encoder, point.image_size))
        on_tick("policies", Tick(number + 1, len(points), 0, 0.0))
    rates = _rates(encoders, models, settings)
    medians = median_rates(rates)
    for place, result in enumerate(results):
        result["images_per_second"] = medians[place]
        result["measured"] = median_speedup(rates, place, 0)
        result["theoretical"] = results[0]["gmacs"] / result["gmacs"]
    return {
        "dataset": settings.images.absolute().name,
        "model": settings.model,
        "num_images": len(entries),
        "num_captions": len(texts),
        "num_cut_captions": num_cut,
        "warnings": warnings,
        "points": results,
        "at_equal_speed": at_equal_speed(results),
        "environment": {
            **provenance(),
            "device": device_name(models.device),
            "precision": models.loaded(None).spec.precision,
            "batch_size": models.batch_size,
            "rounds": settings.rounds,
        },
    }


def _captioned(settings: BenchPoliciesSettings) -> tuple[list[ImageEntry], dict[str, list[str]]]:
    """The images that have captions, or a random sample of them; and all captions by key."""
    entries, captions = list_captioned(settings.images, settings.captions)
    entries = [entry for entry in entries if entry.key in captions]
    if settings.num_images and settings.num_images < len(entries):
        entries = random.Random(settings.seed).sample(entries, settings.num_images)
    return entries, captions


def at_equal_speed(points: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Sum of text->image R@1, R@5 and R@10 of each series at the same measured speed-ups; at most 3.

    Interpolates linearly between the unpruned tower and the points of a series; None beyond its fastest point.
    """
    first, *others = [(point["series"], point["measured"], recall_sum(point["metrics"])) for point in points]
    table = {}
    for name in dict.fromkeys(series for series, _, _ in others):
        line = sorted([first[1:], *(point[1:] for point in others if point[0] == name)])
        speeds, totals = zip(*line, strict=True)
        table[name] = {
            f"{speed:g}x": float(np.interp(speed, speeds, totals)) if speed <= speeds[-1] else None
            for speed in EQUAL_SPEEDS
        }
    return table


class _Models:
    """The model and the pixels at each input size, loaded on first use."""

    def __init__(self, settings: BenchPoliciesSettings, entries: list[ImageEntry]) -> None:
        self._settings, self._entries = settings, entries
        use_all_cores()
        self.device = pick_device(settings.device)
        self._loaded: dict[int | None, LoadedModel] = {}
        self._pixels: dict[int | None, np.ndarray] = {}
        self.batch_size = settings.batch_size or default_batch_size(self.device)

    def loaded(self, image_size: int | None) -> LoadedModel:
        if image_size not in self._loaded:
            source = self._settings.model_source()
            source = source.model_copy(update={"image_size": image_size or source.image_size})
            # the first model decides for all: points are compared, so they are computed alike
            first = next(iter(self._loaded.values()), None)
            precision, kernels = (first.spec.precision, first.kernels) if first else (self._settings.precision, None)
            self._loaded[image_size] = load_model(source, precision, self.device, self.batch_size, kernels)
        return self._loaded[image_size]

    def pixels(self, image_size: int | None) -> np.ndarray:
        if image_size not in self._pixels:
            batch = decode_batch(self._entries, self.loaded(image_size).spec.preprocess)
            failed = batch.first_failed()
            if failed:
                raise InputError(f"cannot decode {failed.key}: {failed.error}; remove it from the captions")
            self._pixels[image_size] = batch.pixels
        return self._pixels[image_size]


def _encode(encoder: Encoder, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    starts = range(0, len(pixels), batch_size)
    return np.concatenate([encoder.encode(pixels[start : start + batch_size]) for start in starts])


def _rates(
    encoders: list[tuple[Encoder, int | None]], models: _Models, settings: BenchPoliciesSettings
) -> dict[int, list[float]]:
    timed = {
        place: (encoder, models.pixels(size)[: settings.bench_images]) for place, (encoder, size) in enumerate(encoders)
    }
    return images_per_second(timed, models.batch_size, settings.rounds)
