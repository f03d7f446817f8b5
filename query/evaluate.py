"""`clipsieve evaluate`: from captioned photos to recall and speed, pruned against unpruned.

Definitions, here and throughout this project:

- Condition `none` is open_clip's own forward pass in its fastest settings (see `pipeline.model.encode`). It is the
  baseline of every difference, speed-up and cost ratio.
- `images_per_second`: the image tower alone on uint8 in memory, median of interleaved rounds without the warm-up.
- `images_per_second_end_to_end`: from files to committed Parquet on all Ray workers, without their start-up.
- Metrics are fractions. Differences are paired, with a bootstrap 95 % interval clustered by image.
- `recovery` of an adapter: the share of the text->image R@1 + R@5 + R@10 lost to a policy that the adapter recovers.
  It is measured against the unpruned model, and against `none+control`, an adapter trained the same way without
  pruning: training on captions of the same kind of data raises recall by itself, which is not recovery.
"""

import math
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.embed_report import EmbedReport
from pipeline.embedding import embed
from pipeline.measure.bootstrap import paired_difference, recovered_share
from pipeline.measure.provenance import provenance
from pipeline.measure.recall import KS, recall_metrics
from pipeline.measure.timing import ROUNDS, images_per_second, median_rates, median_speedup
from pipeline.model.device import pick_device, use_all_cores
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import UNPRUNED
from pipeline.model.spec import DeviceChoice
from pipeline.monitor.progress import Tick
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.captions import list_captioned
from pipeline.store.records import StoreRecord
from pipeline.workers.pool import worker_pool
from query.evaluation.answers import Answers, answer
from query.evaluation.conditions import CONTROL, Condition, conditions_of, embed_settings
from query.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings, on_tick: Callable[[str, Tick], None] = lambda name, tick: None) -> dict:
    """Embed the same images unpruned and under each policy, and compare recall, speed and cost.

    Args:
        settings: Images, captions and encoder.
        on_tick: Called with a condition's name and the progress of its embedding.

    Returns:
        The results as written to JSON. Metrics have CLIP_benchmark's names and are fractions.

    Raises:
        ConfigError: If the device is not available.
        InputError: If captions and images do not match.
    """
    pick_device(settings.device)  # fail before anything is embedded
    entries, captions = list_captioned(settings.images, settings.captions)
    conditions = conditions_of(settings)
    with ExitStack() as stack:
        out = settings.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipsieve-")))
        with worker_pool(settings) as pool:
            reports = {
                condition.name: embed(
                    embed_settings(settings, condition, out),
                    lambda tick, name=condition.name: on_tick(name, tick),
                    pool,
                    is_baseline=True,
                )
                for condition in conditions
            }
        warnings = list(dict.fromkeys(text for report in reports.values() for text in report.warnings))
        if any(condition.policy and not reports[condition.name].record.encoder.policy for condition in conditions):
            # no policy was asked for, and this tower cannot be pruned
            conditions, reports = conditions[:1], {UNPRUNED: reports[UNPRUNED]}
        bench_entries = entries[: settings.bench_images]
        rates = _tower_rates(bench_entries, conditions, reports[UNPRUNED].record, settings.device)
        answers = answer(reports, captions, {entry.key for entry in entries}, on_tick)
    results = {
        "dataset": settings.images.absolute().name,
        "model": settings.model,
        "pretrained": settings.pretrained,
        **answers.counts,
        "warning": next(iter(warnings), None),
        "warnings": [*warnings, *answers.warnings],
        "conditions": [_condition_results(condition, reports, rates, answers) for condition in conditions],
        "environment": _environment(reports[UNPRUNED]),
    }
    if settings.adapter:
        results |= {"adapter": settings.adapter, "control": settings.control}
        results["recovery"] = [_recovery(condition, answers) for condition in conditions if condition.is_repaired]
    return results


def _tower_rates(
    entries: list[ImageEntry], conditions: list[Condition], record: StoreRecord, asked: DeviceChoice
) -> dict[str, dict]:
    spec = record.encoder
    pixels = decode_batch(entries, spec.preprocess, record.max_pixels).pixels
    use_all_cores()
    device, loaded = pick_device(asked), {}
    for adapter in {condition.adapter for condition in conditions}:
        source = spec.source.model_copy(update={"adapter": adapter})
        loaded[adapter] = load_model(source, spec.precision, device, kernels=record.kernels)
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
        # None for a store that was already finished
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
    """Share of the text->image R@1 + R@5 + R@10 lost to the policy that the adapter recovers."""
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
