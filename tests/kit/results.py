"""Results of a sweep, made by hand: as many conditions as wanted, numbers that look like those of real models."""

import math

from query.evaluation.record import ConditionRecord, DataRecord, IndexRecord, SweepRecord
from query.evaluation.results import (
    ConditionResults,
    Decomposition,
    Estimate,
    FrontResults,
    GateRow,
    Gates,
    MixedResults,
    OnData,
    Results,
    Speed,
    Step,
)

METRIC = "image_retrieval_recall@5"
DATA = "flickr8k"
# series: role, (name, speed-up, loss in points) of each condition
SERIES = {
    "clipsieve": (
        "condition",
        [("lossless", 1.34, 0.0), ("balanced", 1.64, 0.1), ("fast", 1.93, 1.1), ("lean", 2.5, 3.6)],
    ),
    "with adapter": (
        "condition",
        [("balanced+adapter", 1.63, -0.4), ("fast+adapter", 1.92, 0.3), ("lean+adapter", 2.48, 1.6)],
    ),
    "balanced, sharpened": (
        "condition",
        [("balanced(1.3x)", 1.38, -0.2), ("balanced(1.7x)", 1.72, 1.2), ("balanced(2.4x)", 2.33, 7.5)],
    ),
    "reference method": ("rival", [("l2 at 0.25, keep 0.7", 1.62, 1.4), ("l2 at 0.25, keep 0.5", 1.95, 4.4)]),
    "random dropping": ("rival", [("random at 0.25, keep 0.7", 1.61, 3.7), ("random at 0.25, keep 0.5", 1.91, 9.0)]),
    "grid dropping": ("rival", [("grid at 0.25, keep 0.7", 1.6, 2.7), ("grid at 0.25, keep 0.5", 1.93, 7.7)]),
    "down-scaled input": ("rival", [("192 px", 1.66, 2.5), ("160 px", 2.4, 6.8)]),
    "bipartite merging": ("rival", [("removes 0.041", 1.16, 1.4), ("removes 0.0664", 1.41, 3.6)]),
}
_BASE, _RATE = 0.508, 130.6
_METRICS = {
    "image_retrieval_recall@1": 0.43,
    "image_retrieval_recall@5": 1.0,
    "image_retrieval_recall@10": 1.25,
    "text_retrieval_recall@1": 0.58,
    "text_retrieval_recall@5": 1.18,
    "text_retrieval_recall@10": 1.46,
}


def many(num_series):
    """More series of 5 conditions each, for a sweep that is hard to draw."""
    return {
        f"series number {number}": (
            "condition",
            [(f"policy {number}.{k}", 1.2 + 0.05 * number + 0.25 * k, 0.2 * number + 0.9 * k * k) for k in range(5)],
        )
        for number in range(num_series)
    }


def made_results(series=None, data=(DATA,), kind="captions", timed=True):
    """Results with everything in them: fronts, decompositions, mixed galleries."""
    series = series or SERIES
    baseline = condition("none", "none", "baseline", 1.0)
    found = [on_everything(baseline, data, 1.0, 0.0, timed)]
    for name, (role, conditions) in series.items():
        for title, speed, loss in conditions:
            found.append(on_everything(condition(title, name, role, speed), data, speed, loss, timed))
    by_name = {one.condition.name: one for one in found}
    decompositions = []
    if {"fast", "fast+adapter"} <= by_name.keys():
        indexes = [indexed(by_name["fast+adapter"], data, effort, loss) for effort, loss in ((1, 2.9), (4, 0.9))]
        found += indexes
        chain = [by_name[name] for name in ("none", "fast", "fast+adapter")]
        decompositions += [
            Decomposition(
                data=data[0],
                metric=METRIC,
                steps=steps_of([*chain, index], data[0]),
                recovery=Estimate(0.73, 0.2, 1.1),
                notes=["The adapter was not trained on the distractors."],
            )
            for index in indexes
        ]
    mixed = (
        [
            MixedResults(
                data=data[0],
                first=by_name["none"].condition.key,
                second=by_name["fast"].condition.key,
                share=Estimate(0.534, 0.529, 0.539),
                expected=0.501,
                k=10,
                recall={"image_retrieval_recall@5": Estimate(0.495, 0.481, 0.509)},
                advice="Images of none get 3.3 points more of the top 10 than they should.",
            )
        ]
        if "fast" in by_name
        else []
    )
    return Results(
        record=record_of([one.condition for one in found], data, kind),
        conditions=found,
        fronts=[front_of(found, name) for name in data] if timed else [],
        decompositions=decompositions,
        mixed=mixed,
        gates=Gates(rows=[gate_of(one, data[0]) for one in found[1:4]], notes=["speedup: not checked"], baseline=None),
    )


def gate_of(one, data):
    """How a gate on the loss of a condition fared."""
    lost = -one.on[data].differences[METRIC].value
    return GateRow(
        status="OK" if lost < 0.005 else "DRIFT", condition=one.condition.name, key=one.condition.key, data=data,
        metric=METRIC, kind="max_loss", limit=0.01, estimate=estimate(lost, 0.004), place="grid.yaml, line 9",
        bound="a loss of at most 1.0 points", found=f"{100 * lost:.1f} points",
    )  # fmt: skip


def condition(name, series, role, speed):
    """A condition's record."""
    key = "".join(letter if letter.isalnum() else "-" for letter in name.lower()) + "-0a1b2c3d"
    policy = (
        None
        if role == "baseline" or name.endswith("px")
        else {"name": name.removesuffix("+adapter"), "reduce": "merge"}
    )
    return ConditionRecord(
        key=key,
        name=name,
        series=series,
        role=role,
        model="ViT-B-16",
        pretrained="laion2b_s34b_b88k",
        policy=policy,
        adapter="adapters/fast" if name.endswith("+adapter") else None,
        image_size=224,
        precision="bf16",
        fingerprint=key * 2,
        gmacs=round(17.58 / (1 + 0.95 * (speed - 1)), 3),
        tokens_kept=round(197 / speed),
    )


def estimate(value, reach, **more):
    """A number with an interval that is a little lopsided."""
    return Estimate(value, value - reach, value + 0.9 * reach, **more)


def on_everything(record, data, speed, loss, timed):
    """A condition's results on every data set."""
    on = {name: on_data(record, name, loss, 0.06 * number) for number, name in enumerate(data)}
    seconds = Speed(
        images_per_second=estimate(_RATE * speed, 0.02 * _RATE * speed, method="t"),
        speedup=Estimate(1, 1, 1, "none") if record.role == "baseline" else estimate(speed, 0.03 * speed, method="t"),
        theoretical=17.58 / record.gmacs,
        num_rounds=7,
    )
    return ConditionResults(condition=record, on=on, speed=seconds if timed else None)


def on_data(record, data, loss, lower):
    """A condition's results on one data set."""
    metrics, differences = {}, {}
    for metric, share in _METRICS.items():
        change = -loss / 100 * min(share, 1.0)
        value = min((_BASE - lower) * share, 0.97) + change
        metrics[metric] = estimate(value, 1.4 * math.sqrt(value * (1 - value) / 500))
        differences[metric] = estimate(
            change, 0.004 + 0.1 * abs(change), method="exact" if loss == 0 else "bootstrap", detectable=0.006
        )
        for variant, more in (("expected", 0.0004), ("epsilon", 0.004), ("duplicates", 0.006)):
            metrics[f"{metric}({variant})"] = estimate(value + more, 0.014)
            differences[f"{metric}({variant})"] = differences[metric]
    for task in ("image_retrieval", "text_retrieval"):
        metrics[f"{task}_median_rank"] = Estimate(5.0 + round(loss), 5.0, 6.0 + round(loss))
        metrics[f"{task}_mrr"] = estimate(0.352 - loss / 150, 0.01)
        metrics[f"{task}_ndcg@10"] = estimate(0.41 - loss / 150, 0.01)
    fidelity = {
        "overlap@10": 1 - 0.05 * loss - 0.02,
        "rank_biased_overlap": 0.98 - 0.04 * loss,
        "cosine_p5": 0.97 - 0.02 * loss,
        "cosine_p50": 0.985 - 0.01 * loss,
    }
    is_baseline = record.role == "baseline"
    return OnData(
        data=data,
        metrics=metrics,
        differences={} if is_baseline else differences,
        fidelity={} if is_baseline else fidelity,
    )


def indexed(parent, data, effort, loss):
    """An index over the vectors of a condition, at one operating point."""
    record = parent.condition.model_copy(
        update={
            "key": f"index-{effort}-0a1b2c3d",
            "name": f"{parent.condition.name}, IVF64,Flat at {effort}",
            "role": "index",
            "parent": parent.condition.key,
            "index": IndexRecord(recipe="IVF64,Flat", effort=effort, candidates=0, num_bytes=7_000_000),
        }
    )
    return ConditionResults(
        condition=record, on={data[0]: on_data(record, data[0], loss, 0.0)}, query_ms=Estimate(0.21, 0.2, 0.23, "t")
    )


def steps_of(chain, data):
    """The steps of a decomposition, each from the one before it."""
    steps = []
    for one, before in zip(chain, [None, *chain], strict=False):
        total = one.on[data].metrics[METRIC]
        change = total.value - before.on[data].metrics[METRIC].value if before else 0.0
        since_first = total.value - chain[0].on[data].metrics[METRIC].value
        steps.append(
            Step(
                name=one.condition.name,
                key=one.condition.key,
                total=total,
                change=estimate(change, 0.004) if before else None,
                from_first=estimate(since_first, 0.006) if before else None,
            )
        )
    return steps


def front_of(found, data):
    """The front, and what it recommends."""
    ordered = sorted((one for one in found if one.speed), key=lambda one: -one.speed.images_per_second.value)
    keys, best = [], -1.0
    for one in ordered:
        if (value := one.on[data].metrics[METRIC].value) > best:
            keys.append(one.condition.key)
            best = value

    def fastest(loss):
        return next(
            (
                one.condition.key
                for one in ordered
                if one is found[0] or one.on[data].differences[METRIC].value >= -loss / 100
            ),
            None,
        )

    def surely(loss):
        return [
            one.condition.key
            for one in ordered
            if one is found[0] or one.on[data].differences[METRIC].low >= -loss / 100
        ]

    def best_of(rate):
        fit = [one for one in ordered if one.speed.images_per_second.value >= rate]
        return max(fit, key=lambda one: one.on[data].metrics[METRIC].value).condition.key if fit else None

    return FrontResults(
        data=data,
        metric=METRIC,
        keys=keys[::-1],
        speed_at_loss={
            "0.5": Estimate(1.92, 1.64, 1.97),
            "1.0": Estimate(1.95, 1.9, 2.1),
            "2.0": Estimate(2.48, 1.99, 2.52),
        },
        recommended_for_loss={str(loss): fastest(loss) for loss in (0.5, 1.0, 2.0)},
        surely_within_loss={str(loss): surely(loss) for loss in (0.5, 1.0, 2.0)},
        recommended_for_speed={str(rate): best_of(rate) for rate in (200.0, 300.0, 1000.0)},
    )


def record_of(conditions, data, kind):
    """What the sweep was."""
    return SweepRecord(
        clipsieve_version="0.1.0",
        grid={"metric": METRIC, "losses": [0.5, 1.0, 2.0], "rounds": 7, "epsilon": 0.001},
        grid_sha256="9f" * 32,
        commands=["clipsieve sweep grid.yaml --out sweep", "clipsieve sweep grid.yaml --out sweep --gate"],
        environment={
            "cpu": "Intel Xeon",
            "cores": 2,
            "python": "3.11.7",
            "torch": "2.14.1",
            "date": "2026-11-26",
            "device": "cpu",
            "batch_size": 32,
        },
        environment_key="e" * 16,
        data=[
            DataRecord(
                name=name,
                kind=kind,
                location=f"photos/{name}",
                sha256=f"{number}a" * 32,
                counts={
                    "num_images": 1000,
                    "num_own": 1000,
                    "num_distractors": 0,
                    "num_queries": 5000,
                    "num_left_out": 12,
                    "num_failed": 0,
                },
            )
            for number, name in enumerate(data)
        ],
        conditions=conditions,
        warnings=["2 captions are longer than the model reads and were cut."],
    )
