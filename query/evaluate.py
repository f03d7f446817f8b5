"""`clipsieve evaluate`: from captioned photos to recall and speed, pruned against unpruned.

Definitions, here and throughout this project:

- Condition `none` is open_clip's own forward pass in its fastest settings (see `pipeline.model.encode`). It is the
  baseline of every difference, speed-up and cost ratio.
- `images_per_second`: the image tower alone on uint8 in memory, geometric mean of interleaved rounds without the
  warm-up. A speed-up is that of each round's ratio to the baseline in the same round.
- `images_per_second_end_to_end`: from files to committed Parquet on all Ray workers, without their start-up.
- `against_float` of a condition in 8 bits compares it with the same policy and adapter in a float type.
- Metrics are fractions. Differences are paired, with a 95 % interval clustered by image; see `evaluation.statistics`.
- `recovery` of an adapter: the share of the text->image R@1 + R@5 + R@10 lost to a policy that the adapter recovers.
  It is measured against the unpruned model, and against `none+control`, an adapter trained the same way without
  pruning: training on captions of the same kind of data raises recall by itself, which is not recovery.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.embed_report import EmbedReport
from pipeline.embedding import embed
from pipeline.measure.provenance import provenance
from pipeline.measure.timing import ROUNDS, images_per_second
from pipeline.model.calibrate import with_packed
from pipeline.model.device import pick_device, use_all_cores
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.precision import EIGHT_BITS
from pipeline.model.pruning.policy import UNPRUNED
from pipeline.model.spec import DeviceChoice
from pipeline.monitor.progress import Tick
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.captions import list_captioned
from pipeline.store.calibration import read_stored_calibration
from pipeline.workers.pool import worker_pool
from query.evaluation.answers import RECALLS, Answered, answer
from query.evaluation.conditions import CONTROL, RESULTS, Condition, conditions_of, embed_settings
from query.evaluation.metrics.speeds import speed_of, timed_with
from query.evaluation.ranking.both_ways import TEXT_TO_IMAGE
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.timings import Round, write_round
from query.evaluation.results import Estimate
from query.evaluation.statistics.bootstrap import recovery
from query.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings, on_tick: Callable[[str, Tick], None] = lambda name, tick: None) -> dict:
    """Embed the same images unpruned and under each policy, and compare recall, speed and cost.

    Args:
        settings: Images, captions and encoder. With `out`, the stores and the raw results are kept.
        on_tick: Called with a condition's name and the progress of its embedding, then with that of other steps.

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
            conditions = [one for one in conditions if one.asked == UNPRUNED and one.adapter is None]
            reports = {one.name: reports[one.name] for one in conditions}
        raw = SweepFolder(out / RESULTS)
        bench_entries = entries[: settings.bench_images]
        in_float = _in_float(conditions, reports)
        rounds, gmacs = _timed(bench_entries, conditions, reports, settings.device, raw, on_tick)
        answered = answer(reports, captions, entries, raw, on_tick, in_float)
    results = {
        "dataset": settings.images.absolute().name,
        "dataset_sha256": answered.data.sha256,
        "model": settings.model,
        "pretrained": settings.pretrained,
        **answered.counts,
        "warning": next(iter(warnings), None),
        "warnings": [*warnings, *answered.warnings],
        "conditions": [_condition_results(one, reports[one.name], rounds, gmacs, answered) for one in conditions],
        "environment": _environment(reports[UNPRUNED]),
    }
    if settings.adapter:
        results |= {"adapter": settings.adapter, "control": settings.control}
        results["recovery"] = [
            _recovery(condition, answered)
            for condition in conditions
            if condition.is_repaired and condition.precision == conditions[0].precision
        ]
    return results


def _in_float(conditions: Sequence[Condition], reports: Mapping[str, EmbedReport]) -> dict[str, str]:
    """For each condition in 8 bits, the same policy and adapter in a float type, by their names."""
    is_float = {one.name: reports[one.name].record.encoder.precision not in EIGHT_BITS for one in conditions}
    floats = {(one.asked, one.adapter): one.name for one in reversed(conditions) if is_float[one.name]}
    return {
        one.name: floats[one.asked, one.adapter]
        for one in conditions
        if not is_float[one.name] and (one.asked, one.adapter) in floats
    }


def _timed(
    entries: Sequence[ImageEntry],
    conditions: Sequence[Condition],
    reports: Mapping[str, EmbedReport],
    asked: DeviceChoice,
    raw: SweepFolder,
    on_tick: Callable[[str, Tick], None],
) -> tuple[list[Round], dict[str, float]]:
    """Interleaved rounds of the image tower of each condition, and its multiply-adds (1e9 per image)."""
    record = reports[UNPRUNED].record
    spec = record.encoder
    pixels = decode_batch(entries, spec.preprocess, record.max_pixels).pixels
    use_all_cores()
    device, loaded, encoders = pick_device(asked), {}, {}
    for one in conditions:
        own = reports[one.name].record
        key = one.adapter, own.encoder.precision
        if key not in loaded:
            source = spec.source.model_copy(update={"adapter": one.adapter})
            loaded[key] = load_model(source, own.encoder.precision, device, kernels=own.kernels)
        tower = sharing_weights(loaded[key])
        if own.encoder.calibration:
            path = reports[one.name].view.store.calibration_path
            tower = with_packed(tower, read_stored_calibration(path, own.encoder))
        encoders[one.name] = Encoder(tower, one.policy)
    towers = {name: (encoder, pixels) for name, encoder in encoders.items()}

    def on_round(number: int) -> None:
        on_tick("rounds", Tick(number, ROUNDS, 0, 0.0, is_of_images=False))

    on_round(0)
    rates = images_per_second(towers, record.batch_size, on_round=on_round)
    rounds = [_round(number, rates, len(pixels)) for number in range(ROUNDS)]
    for timed_round in rounds:
        write_round(raw.timings, timed_round)
    return rounds, {name: encoder.gmacs for name, encoder in encoders.items()}


def _round(number: int, rates: dict[str, list[float]], num_images: int) -> Round:
    # the warm-up ran forth, the first round back
    keys = list(rates) if number % 2 else list(reversed(rates))
    seconds = [num_images / rates[key][number] for key in keys]
    num_items = [num_images] * len(keys)
    return Round(
        number=number, block=0, kind="tower", keys=keys, seconds=seconds, num_items=num_items, environment_key=""
    )


def _condition_results(
    condition: Condition, report: EmbedReport, rounds: Sequence[Round], gmacs: Mapping[str, float], answered: Answered
) -> dict[str, Any]:
    name, found = condition.name, answered.measured.on[condition.name]
    speed = speed_of(timed_with(rounds, UNPRUNED)[name], gmacs[name], gmacs[UNPRUNED])
    is_baseline = name == UNPRUNED
    recalls = [metric for metric in found.metrics if metric.partition("_recall@")[2].isdecimal()]
    results = {
        "name": name,
        "policy": condition.policy.model_dump() if condition.policy else {"name": UNPRUNED},
        "adapter": report.record.encoder.adapter,
        "precision": report.record.encoder.precision,
        "fingerprint": report.record.fingerprint,
        "metrics": {metric: found.metrics[metric].value for metric in recalls},
        "estimates": {metric: _plain(estimate) for metric, estimate in found.metrics.items()},
        "images_per_second": speed.images_per_second.value,
        # None for a store that was already finished
        "images_per_second_end_to_end": report.images_per_second_end_to_end,
        "gmacs": gmacs[name],
        "cosine_to_unpruned": 1.0 if is_baseline else found.fidelity["cosine_mean"],
    }
    if against := found.against_float:
        over_float = timed_with(rounds, against.key)[name].speedup
        results["against_float"] = {
            "condition": against.key,
            "deltas": {metric: _plain(delta) for metric, delta in against.differences.items()},
            "fidelity": against.fidelity,
            "speedup": {"measured": over_float.value, "ci95": _ends(over_float)},
        }
    if is_baseline:
        return results
    if name in answered.recall_of_bare_texts:
        results["metrics_of_bare_texts"] = answered.recall_of_bare_texts[name]
    measured = speed.speedup
    return results | {
        "fidelity": found.fidelity,
        "deltas": {metric: _plain(found.differences[metric]) for metric in recalls},
        "speedup": {"measured": measured.value, "ci95": _ends(measured), "theoretical": speed.theoretical},
    }


def _plain(estimate: Estimate) -> dict[str, Any]:
    found = {"value": estimate.value, "ci95": _ends(estimate), "method": estimate.method}
    return found | ({} if estimate.detectable is None else {"detectable": estimate.detectable})


def _ends(estimate: Estimate) -> list[float] | None:
    return [estimate.low, estimate.high] if math.isfinite(estimate.low + estimate.high) else None


def _recovery(condition: Condition, answered: Answered) -> dict[str, Any]:
    """Share of the text->image R@1 + R@5 + R@10 lost to the policy that the adapter recovers."""
    measured = answered.measured
    hits = {
        name: np.mean([measured.values[metric][name].values_Q for metric in RECALLS], axis=0) for name in measured.on
    }
    pruned = condition.policy.name
    shares: dict[str, Any] = {"policy": pruned}
    for goal in (UNPRUNED, CONTROL):
        if goal in hits:
            draws = measured.tasks[TEXT_TO_IMAGE].draws
            share = recovery(hits[condition.name], hits[pruned], hits[goal], draws)
            value = share.value if math.isfinite(share.value) else None
            shares[f"of_{goal}"] = {"value": value, "ci95": None if value is None else _ends(share)}
    return shares


def _environment(report: EmbedReport) -> dict[str, Any]:
    return {
        **provenance(),
        "precision": report.record.encoder.precision,
        "batch_size": report.record.batch_size,
        "rounds": ROUNDS,
        **report.record.environment,
    }
