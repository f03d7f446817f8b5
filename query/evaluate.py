"""`clipsieve evaluate`: the whole story from photos with captions to recall and speed, pruned against unpruned.

What is measured, here and everywhere in this project:

- Condition `none` is open_clip's own forward in its fastest own settings (see `pipeline.model.encode`). It is the baseline
  of every difference, speed-up and cost ratio.
- `images_per_second`: the image tower alone on uint8 in memory, median of interleaved rounds, warm-up thrown away.
- `images_per_second_end_to_end`: files to committed Parquet on all Ray workers, their start excluded.
- Metrics are fractions; differences are paired, with a bootstrap 95 % interval clustered by image.
- `recovery` of an adapter: of the text->image R@1 + R@5 + R@10 that a policy costs, the share that is given back;
  measured against the unpruned model, and against `none+control`, an adapter trained alike without pruning: on captions
  of the same kind of data training alone lifts recall, which is not recovery.
"""

import math
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.embed import EmbedReport, embed
from pipeline.errors import InputError
from pipeline.measure.provenance import provenance
from pipeline.measure.recall import KS, first_hit_ranks, paired_difference, recall_metrics, recovered_share
from pipeline.measure.timing import ROUNDS, images_per_second, median_rates, median_speedup
from pipeline.model.device import pick_device, use_all_cores
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import UNPRUNED, PruningPolicy
from pipeline.model.spec import EncoderSpec
from pipeline.monitor.progress import Tick
from pipeline.pixels.decode import decode_batch
from pipeline.settings.embed import EmbedSettings
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.captions import read_captions, with_captions
from pipeline.source.formats.folder import list_images
from pipeline.store.markers import committed_markers
from pipeline.store.parts import embeddings_of, read_part
from pipeline.store.records import StoreRecord
from pipeline.workers.pool import worker_pool
from query.settings import EvaluateSettings
from query.text import text_encoder

ADAPTED = "+adapter"
CONTROL = f"{UNPRUNED}+control"


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to embed the images: its name in the results, what `--policy` calls it, the policy, the adapter."""

    name: str
    asked: str | None
    policy: PruningPolicy | None
    adapter: str | None = None


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
    conditions = _conditions(settings)
    with ExitStack() as stack:
        out = settings.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipsieve-")))
        with worker_pool(settings) as pool:
            reports = {
                condition.name: embed(
                    _embed_settings(settings, condition, out),
                    lambda tick, name=condition.name: on_tick(name, tick),
                    pool,
                    is_baseline=True,
                )
                for condition in conditions
            }
        warning = next((report.warnings[0] for report in reports.values() if report.warnings), None)
        if warning:  # nobody asked for a policy, and this tower takes none
            conditions, reports = conditions[:1], {UNPRUNED: reports[UNPRUNED]}
        bench_entries = entries[: settings.bench_images]
        rates = _tower_rates(bench_entries, conditions, reports[UNPRUNED].record)
        answers = _answer(reports, captions)
    results = {
        "dataset": settings.images.absolute().name,
        "model": settings.model,
        "pretrained": settings.pretrained,
        **answers.counts,
        "warning": warning,
        "conditions": [_condition_results(condition, reports, rates, answers) for condition in conditions],
        "environment": _environment(reports[UNPRUNED]),
    }
    if settings.adapter:
        results |= {"adapter": settings.adapter, "control": settings.control}
        results["recovery"] = [_recovery(condition, answers) for condition in conditions if _is_repaired(condition)]
    return results


def _conditions(settings: EvaluateSettings) -> list[Condition]:
    """The unpruned model first, then each policy; and the same with the adapter where there is one."""
    conditions = [Condition(UNPRUNED, UNPRUNED, None)]
    if settings.control:
        conditions.append(Condition(CONTROL, UNPRUNED, None, settings.control))
    if settings.adapter and settings.asks_unpruned:
        conditions.append(Condition(f"{UNPRUNED}{ADAPTED}", UNPRUNED, None, settings.adapter))
    for asked, policy in settings.pruning_policies().items():
        conditions.append(Condition(policy.name, asked, policy))
        if settings.adapter:
            conditions.append(Condition(f"{policy.name}{ADAPTED}", asked, policy, settings.adapter))
    return conditions


def _is_repaired(condition: Condition) -> bool:
    return condition.policy is not None and condition.adapter is not None


def _embed_settings(settings: EvaluateSettings, condition: Condition, out: Path) -> EmbedSettings:
    fields = set(EmbedSettings.model_fields) - {"out", "captions", "config", "policy", "source"}
    shared = settings.model_dump(include=fields)
    shared |= {"policy": condition.asked, "adapter": condition.adapter}
    if condition.policy is None:
        shared |= {"keep_ratio": None, "gmac_ratio": None}
    return EmbedSettings(**shared, source=str(settings.images), out=out / condition.name, captions=settings.captions)


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the queries. `ranks` are of the first hit, by condition and task."""

    ranks: dict[str, dict[str, np.ndarray]]
    bare_ranks: dict[str, dict[str, np.ndarray]]
    """The same with texts embedded without the adapter, where it changes the text tower."""

    clusters: dict[str, np.ndarray]
    """Image that each query belongs to, by task."""

    cosines: dict[str, float]
    """Mean cosine of the images' embeddings to the unpruned ones."""

    counts: dict[str, int]


def _answer(reports: dict[str, EmbedReport], captions: dict[str, list[str]]) -> Answers:
    images = {name: _embeddings_by_key(report) for name, report in reports.items()}
    failed = sorted(captions.keys() - images[UNPRUNED].keys())
    keys = [key for key in captions if key in images[UNPRUNED]]
    if not keys:
        raise InputError(f"none of the {len(captions)} captioned images could be embedded, first {failed[0]!r}")
    gallery = keys + sorted(images[UNPRUNED].keys() - captions.keys())
    texts = [text for key in keys for text in captions[key]]
    text_labels = np.array([number for number, key in enumerate(keys) for _ in captions[key]])
    image_labels = np.arange(len(gallery))
    captioned = slice(0, len(keys))

    def ranks(vectors_NE: np.ndarray, text_vectors_QE: np.ndarray) -> dict[str, np.ndarray]:
        owned_NE = vectors_NE[captioned]
        return {
            "image_retrieval": first_hit_ranks(text_vectors_QE, text_labels, vectors_NE, image_labels),
            "text_retrieval": first_hit_ranks(owned_NE, image_labels[captioned], text_vectors_QE, text_labels),
        }

    encoders = {name: report.record.encoder for name, report in reports.items()}
    text_vectors = {spec.text_space: text_encoder(spec).encode_texts(texts) for spec in _one_of_each(encoders.values())}
    vectors = {name: np.stack([by_key[key] for key in gallery]) for name, by_key in images.items()}
    bare = encoders[UNPRUNED].text_space
    return Answers(
        ranks={name: ranks(vectors[name], text_vectors[encoders[name].text_space]) for name in reports},
        bare_ranks={
            name: ranks(vectors[name], text_vectors[bare]) for name in reports if encoders[name].text_space != bare
        },
        clusters={"image_retrieval": text_labels, "text_retrieval": image_labels[captioned]},
        cosines={name: float((vectors[name] * vectors[UNPRUNED]).sum(axis=1).mean()) for name in reports},
        counts={"num_images": len(gallery), "num_captions": len(texts), "num_failed_images": len(failed)},
    )


def _one_of_each(specs: Iterable[EncoderSpec]) -> Iterable[EncoderSpec]:
    return {spec.text_space: spec for spec in specs}.values()


def _embeddings_by_key(report: EmbedReport) -> dict[str, np.ndarray]:
    by_key = {}
    for stats in committed_markers(report.store, report.record).values():
        table = read_part(report.store.part_of(stats), ["id", "key", "status", "embedding"])
        key_of = dict(zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True))
        ids, vectors = embeddings_of(table)
        by_key |= {key_of[i]: vector for i, vector in zip(ids.tolist(), vectors, strict=True)}
    return by_key


def _tower_rates(entries: list[ImageEntry], conditions: list[Condition], record: StoreRecord) -> dict[str, dict]:
    spec = record.encoder
    pixels = decode_batch(entries, spec.preprocess, record.max_pixels).pixels
    use_all_cores()
    device, loaded = pick_device(), {}
    for adapter in {condition.adapter for condition in conditions}:
        source = spec.source.model_copy(update={"adapter": adapter})
        loaded[adapter] = load_model(source, spec.precision, device)
    encoders = {
        condition.name: Encoder(sharing_weights(loaded[condition.adapter]), condition.policy)
        for condition in conditions
    }
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
    condition: Condition, reports: dict[str, EmbedReport], rates: dict[str, dict], answers: Answers
) -> dict[str, Any]:
    name, report, rate = condition.name, reports[condition.name], rates[condition.name]
    results = {
        "name": name,
        "policy": condition.policy.model_dump() if condition.policy else {"name": UNPRUNED},
        "adapter": report.record.encoder.adapter,
        "fingerprint": report.record.fingerprint,
        "metrics": recall_metrics(answers.ranks[name]),
        "images_per_second": rate["images_per_second"],
        # a store that was found finished says nothing about speed
        "images_per_second_end_to_end": report.images_per_second_end_to_end,
        "gmacs": rate["gmacs"],
        "cosine_to_unpruned": answers.cosines[name],
    }
    if name == UNPRUNED:
        return results
    if name in answers.bare_ranks:
        results["metrics_of_bare_texts"] = recall_metrics(answers.bare_ranks[name])
    deltas = {}
    for task, task_ranks in answers.ranks[name].items():
        for k in KS:
            baseline = answers.ranks[UNPRUNED][task] < k
            value, interval = paired_difference(task_ranks < k, baseline, answers.clusters[task])
            deltas[f"{task}_recall@{k}"] = {"value": value, "ci95": list(interval)}
    speedup = {"measured": rate["measured"], "theoretical": rate["theoretical"]}
    return results | {"deltas": deltas, "speedup": speedup}


def _recovery(condition: Condition, answers: Answers) -> dict[str, Any]:
    """Share of what the policy costs that the adapter gives back, in text->image R@1 + R@5 + R@10."""
    task = "image_retrieval"
    hits = {name: sum(ranks[task] < k for k in KS) for name, ranks in answers.ranks.items()}
    pruned = condition.policy.name
    shares = {"policy": pruned}
    for goal in (UNPRUNED, CONTROL):
        if goal in hits:
            value, interval = recovered_share(hits[condition.name], hits[pruned], hits[goal], answers.clusters[task])
            known = math.isfinite(value)
            shares[f"of_{goal}"] = {"value": value, "ci95": list(interval)} if known else {"value": None, "ci95": None}
    return shares


def _environment(report: EmbedReport) -> dict[str, Any]:
    return {
        **provenance(),
        "precision": report.record.encoder.precision,
        "batch_size": report.record.batch_size,
        "rounds": ROUNDS,
        **report.record.environment,
    }
