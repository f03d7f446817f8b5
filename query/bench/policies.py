"""`clipsieve bench policies`: recall against speed of many policies on your own captioned images, in one process.

A plan (YAML) lists series of policies. Every point is embedded once for its recall and timed side by side with all
others, so that policies can be compared at equal measured speed. `evaluate` measures a few policies through the whole
chain; this measures many, through the tower alone.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError, InputError, first_line
from pipeline.measure.provenance import provenance
from pipeline.measure.recall import KS, first_hit_ranks, recall_metrics
from pipeline.measure.timing import images_per_second, median_rates, median_speedup
from pipeline.model.device import default_batch_size, device_name, pick_device, pick_precision, use_all_cores
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import LoadedModel, load_model
from pipeline.model.pruning.policy import UNPRUNED, CutPoint, PruningPolicy, Stages, named_policy, sharpened
from pipeline.monitor.progress import Tick
from pipeline.pixels.decode import decode_batch
from pipeline.settings.load import explain
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.captions import read_captions, with_captions
from pipeline.source.formats.folder import list_images
from query.settings import BenchPoliciesSettings
from query.text import text_encoder

EQUAL_SPEEDS = (1.5, 2.0)


class Series(BaseModel):
    """Points that belong together: named policies, input sizes, or all combinations of scores, depths and keep ratios.

    With depths and keep ratios, each combination is one cut, `options` the other fields of its policy. Other input
    sizes run under the policy `lossless`: what costs no recall is given to the rivals too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    policies: tuple[str | dict[str, Any], ...] = ()
    image_sizes: tuple[int, ...] = ()
    gmac_ratios: tuple[float, ...] = ()
    scores: tuple[str, ...] = ()
    depths: tuple[float, ...] = ()
    keeps: tuple[float, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to measure."""

    series: str
    name: str
    policy: PruningPolicy | None
    image_size: int | None = None


def bench_policies(
    settings: BenchPoliciesSettings, on_tick: Callable[[str, Tick], None] = lambda name, tick: None
) -> dict[str, Any]:
    """Measure every point of a plan.

    Returns:
        The results, as they are written to JSON: one entry per point, the unpruned tower first.

    Raises:
        ConfigError: If the plan is none, or a policy of it does not fit the tower.
        InputError: If captions and images do not fit, or an image cannot be decoded.
    """
    points = [Point(UNPRUNED, UNPRUNED, None), *read_plan(settings.plan)]
    captions = read_captions(settings.captions)
    entries = with_captions(list_images(settings.images)[0], captions)
    entries = [entry for entry in entries if entry.key in captions]
    if settings.num_images and settings.num_images < len(entries):
        entries = random.Random(settings.seed).sample(entries, settings.num_images)
    models = _Models(settings, entries)
    texts = [text for entry in entries for text in captions[entry.key]]
    labels = np.array([number for number, entry in enumerate(entries) for _ in captions[entry.key]])
    text_vectors = text_encoder(models.loaded(None).spec).encode_texts(texts)
    images = np.arange(len(entries))
    encoders, results = {}, []
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
        encoders[f"{point.series}: {point.name}"] = (encoder, point.image_size)
        on_tick("policies", Tick(number + 1, len(points), 0, 0.0))
    rates = _rates(encoders, models, settings)
    medians, first = median_rates(rates), next(iter(rates))
    for name, result in zip(rates, results, strict=True):
        result["images_per_second"] = medians[name]
        result["measured"] = median_speedup(rates, name, first)
        result["theoretical"] = results[0]["gmacs"] / result["gmacs"]
    return {
        "dataset": settings.images.absolute().name,
        "model": settings.model,
        "num_images": len(entries),
        "num_captions": len(texts),
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


def at_equal_speed(points: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The sum of text->image R@1, R@5 and R@10 of each series at the same measured speed-ups, a fraction of 3.

    Linear between a series' points, from the unpruned tower on; None beyond the fastest of them.
    """
    first, *others = [
        (point["series"], point["measured"], sum(point["metrics"][f"image_retrieval_recall@{k}"] for k in KS))
        for point in points
    ]
    table = {}
    for name in dict.fromkeys(series for series, _, _ in others):
        line = sorted([first[1:], *(point[1:] for point in others if point[0] == name)])
        speeds, totals = zip(*line, strict=True)
        table[name] = {
            f"{speed:g}x": float(np.interp(speed, speeds, totals)) if speed <= speeds[-1] else None
            for speed in EQUAL_SPEEDS
        }
    return table


def read_plan(path: Path) -> list[Point]:
    """The points of a plan, a YAML list of `Series`.

    Raises:
        ConfigError: Naming the file, the series and the field.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        series = [Series(**value) for value in values]
        points = [point for each in series for point in _points(each)]
    except OSError as error:
        raise ConfigError(f"cannot read plan {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(explain(error, f"plan {path}")) from error
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(f"plan {path} is no YAML list of series: {first_line(error)}") from error
    names = [(point.series, point.name) for point in points]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice or not points:
        raise ConfigError(
            f"plan {path}: " + (f"{twice[1]!r} is twice in series {twice[0]!r}" if twice else "no points")
        )
    return points


def _points(series: Series) -> Iterator[Point]:
    for named in series.policies:
        policy = named_policy(named) if isinstance(named, str) else PruningPolicy(**{**series.options, **named})
        for each in [sharpened(policy, ratio) for ratio in series.gmac_ratios] or [policy]:
            yield Point(series.name, each.name if each else UNPRUNED, each)
    for size in series.image_sizes:
        yield Point(series.name, f"{size} px", named_policy("lossless"), size)
    for score, depth, keep in itertools.product(series.scores, series.depths, series.keeps):
        schedule = Stages(cuts=(CutPoint(depth=depth, keep=keep),))
        name = f"{score} at {depth:g}, keep {keep:g}"
        yield Point(series.name, name, PruningPolicy(name=name, score=score, schedule=schedule, **series.options))


class _Models:
    """The model and the pixels at each input size, loaded when they are first asked for."""

    def __init__(self, settings: BenchPoliciesSettings, entries: list[ImageEntry]) -> None:
        self._settings, self._entries = settings, entries
        use_all_cores()
        self.device = pick_device()
        self._loaded: dict[int | None, LoadedModel] = {}
        self._pixels: dict[int | None, np.ndarray] = {}
        self.batch_size = settings.batch_size or default_batch_size(self.device)

    def loaded(self, image_size: int | None) -> LoadedModel:
        if image_size not in self._loaded:
            precision = pick_precision(self._settings.precision, self.device)
            source = self._settings.model_source()
            source = source.model_copy(update={"image_size": image_size or source.image_size})
            self._loaded[image_size] = load_model(source, precision, self.device)
        return self._loaded[image_size]

    def pixels(self, image_size: int | None) -> np.ndarray:
        if image_size not in self._pixels:
            batch = decode_batch(self._entries, self.loaded(image_size).spec.preprocess)
            failed = batch.first_failed()
            if failed:
                raise InputError(f"cannot decode {failed.key}: {failed.error}; leave it out of the captions")
            self._pixels[image_size] = batch.pixels
        return self._pixels[image_size]


def _encode(encoder: Encoder, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    starts = range(0, len(pixels), batch_size)
    return np.concatenate([encoder.encode(pixels[start : start + batch_size]) for start in starts])


def _rates(
    encoders: dict[str, tuple[Encoder, int | None]], models: _Models, settings: BenchPoliciesSettings
) -> dict[str, list[float]]:
    timed = {
        name: (encoder, models.pixels(size)[: settings.bench_images]) for name, (encoder, size) in encoders.items()
    }
    return images_per_second(timed, models.batch_size, settings.rounds)
