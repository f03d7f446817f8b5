"""`clipsieve evaluate`: the whole story from photos with captions to recall and speed, pruned against unpruned.

What is measured, here and everywhere in this project:

- Condition `none` is open_clip's own forward in its fastest own settings (see `pipeline.encode`). It is the baseline
  of every difference, speed-up and cost ratio.
- `images_per_second`: the image tower alone on uint8 in memory, median of interleaved rounds, warm-up thrown away.
- `images_per_second_end_to_end`: files to committed Parquet on all Ray workers, their start excluded.
- Metrics are fractions; differences are paired, with a bootstrap 95 % interval clustered by image.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench import ROUNDS, images_per_second, median_rates, median_speedup
from pipeline.decode import decode_batch
from pipeline.encode import Encoder, twin, whole_machine
from pipeline.errors import InputError
from pipeline.model.load import load_model
from pipeline.policy import UNPRUNED, PruningPolicy
from pipeline.progress import Tick
from pipeline.ray_backend import worker_pool
from pipeline.recall import KS, first_hit_ranks, paired_difference, recall_metrics
from pipeline.run import EmbedReport, embed
from pipeline.schema import embeddings_of, read_part
from pipeline.settings import EmbedSettings
from pipeline.source import ImageEntry, list_images, read_captions, with_captions
from pipeline.store import RunRecord
from query.provenance import provenance
from query.settings import EvaluateSettings
from query.text import text_encoder


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to embed the images: its name in the results, what `--policy` calls it, and the policy."""

    name: str
    asked: str | None
    policy: PruningPolicy | None


def evaluate(settings: EvaluateSettings, on_tick: Callable[[str, Tick], None] = lambda name, tick: None) -> dict:
    """Embed the same images unpruned and under each policy, and compare recall, speed and cost.

    Args:
        settings: Images, captions, encoder.
        on_tick: Told the condition and how far its embedding is.

    Returns:
        The results, as they are written to JSON; metrics have CLIP_benchmark's names and are fractions.

    Raises:
        InputError: If captions and images do not fit.
    """
    captions = read_captions(settings.captions)
    entries = with_captions(list_images(settings.images)[0], captions)
    conditions = [Condition(UNPRUNED, UNPRUNED, None)]
    conditions += [Condition(policy.name, asked, policy) for asked, policy in settings.pruning_policies().items()]
    with ExitStack() as stack:
        out = settings.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipsieve-")))
        with worker_pool(settings.ray_address, settings.workers) as pool:
            reports = {
                condition.name: embed(
                    _embed_settings(settings, condition, out),
                    lambda tick, name=condition.name: on_tick(name, tick),
                    pool,
                )
                for condition in conditions
            }
        warning = next((report.warning for report in reports.values() if report.warning), None)
        if warning:  # nobody asked for a policy, and this tower takes none
            conditions, reports = conditions[:1], {UNPRUNED: reports[UNPRUNED]}
        bench_entries = entries[: settings.bench_images]
        rates = _tower_rates(bench_entries, conditions, reports[UNPRUNED].record)
        ranks, clusters, counts = _ranks(reports, captions)
    results = {
        "dataset": settings.images.absolute().name,
        "model": settings.model,
        "pretrained": settings.pretrained,
        **counts,
        "warning": warning,
        "conditions": [],
        "environment": _environment(reports[UNPRUNED]),
    }
    for condition in conditions:
        results["conditions"].append(_condition_results(condition, reports, rates, ranks, clusters))
    return results


def _embed_settings(settings: EvaluateSettings, condition: Condition, out: Path) -> EmbedSettings:
    shared = settings.model_dump(include=set(EmbedSettings.model_fields) - {"out", "captions", "config", "policy"})
    shared |= {"policy": condition.asked}
    if condition.policy is None:
        shared |= {"keep_ratio": None, "gmac_ratio": None}
    return EmbedSettings(**shared, source=settings.images, out=out / condition.name, captions=settings.captions)


def _ranks(
    reports: dict[str, EmbedReport], captions: dict[str, list[str]]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray], dict[str, int]]:
    """Ranks by condition and task, the image each query belongs to, and how many of everything there were."""
    record = reports[UNPRUNED].record
    images = {name: _embeddings_by_key(report) for name, report in reports.items()}
    failed = sorted(captions.keys() - images[UNPRUNED].keys())
    keys = [key for key in captions if key in images[UNPRUNED]]
    if not keys:
        raise InputError(f"none of the {len(captions)} captioned images could be embedded, first {failed[0]!r}")
    gallery = keys + sorted(images[UNPRUNED].keys() - captions.keys())
    texts = [text for key in keys for text in captions[key]]
    text_labels = np.array([number for number, key in enumerate(keys) for _ in captions[key]])
    image_labels = np.arange(len(gallery))
    text_vectors = text_encoder(record.encoder).encode_texts(texts)
    ranks = {}
    for name, by_key in images.items():
        vectors = np.stack([by_key[key] for key in gallery])
        captioned = slice(0, len(keys))
        ranks[name] = {
            "image_retrieval": first_hit_ranks(text_vectors, text_labels, vectors, image_labels),
            "text_retrieval": first_hit_ranks(vectors[captioned], image_labels[captioned], text_vectors, text_labels),
        }
    clusters = {"image_retrieval": text_labels, "text_retrieval": image_labels[: len(keys)]}
    counts = {"num_images": len(gallery), "num_captions": len(texts), "num_failed_images": len(failed)}
    return ranks, clusters, counts


def _embeddings_by_key(report: EmbedReport) -> dict[str, np.ndarray]:
    by_key = {}
    for shard in report.record.shards:
        table = read_part(report.store.part_path(shard.ordinal), ["id", "key", "status", "embedding"])
        key_of = dict(zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True))
        ids, vectors = embeddings_of(table)
        by_key |= {key_of[i]: vector for i, vector in zip(ids.tolist(), vectors, strict=True)}
    return by_key


def _tower_rates(entries: list[ImageEntry], conditions: list[Condition], record: RunRecord) -> dict[str, dict]:
    spec = record.encoder
    pixels, _ = decode_batch(entries, spec.preprocess, record.max_pixels)
    loaded = load_model(spec.source, spec.precision, whole_machine())
    encoders = {condition.name: Encoder(twin(loaded), condition.policy) for condition in conditions}
    rates = images_per_second({name: (encoder, pixels) for name, encoder in encoders.items()}, record.batch_size)
    medians = median_rates(rates)
    return {
        name: {
            "images_per_second": medians[name],
            "gmacs": encoder.gmacs,
            "measured": median_speedup(rates, name, UNPRUNED),
            "theoretical": encoders[UNPRUNED].gmacs / encoder.gmacs,
        }
        for name, encoder in encoders.items()
    }


def _condition_results(
    condition: Condition,
    reports: dict[str, EmbedReport],
    rates: dict[str, dict],
    ranks: dict[str, dict[str, np.ndarray]],
    clusters: dict[str, np.ndarray],
) -> dict[str, Any]:
    name, report, rate = condition.name, reports[condition.name], rates[condition.name]
    results = {
        "name": name,
        "policy": condition.policy.model_dump() if condition.policy else {"name": UNPRUNED},
        "fingerprint": report.record.fingerprint,
        "metrics": recall_metrics(ranks[name]),
        "images_per_second": rate["images_per_second"],
        # a store that was found finished says nothing about speed
        "images_per_second_end_to_end": report.images_per_second_end_to_end if report.num_embedded else None,
        "gmacs": rate["gmacs"],
    }
    if name == UNPRUNED:
        return results
    deltas = {}
    for task, task_ranks in ranks[name].items():
        for k in KS:
            value, interval = paired_difference(task_ranks < k, ranks[UNPRUNED][task] < k, clusters[task])
            deltas[f"{task}_recall@{k}"] = {"value": value, "ci95": list(interval)}
    speedup = {"measured": rate["measured"], "theoretical": rate["theoretical"]}
    return results | {"deltas": deltas, "speedup": speedup}


def _environment(report: EmbedReport) -> dict[str, Any]:
    return {
        **provenance(),
        "precision": report.record.encoder.precision,
        "batch_size": report.record.batch_size,
        "rounds": ROUNDS,
        **report.record.environment,
    }
