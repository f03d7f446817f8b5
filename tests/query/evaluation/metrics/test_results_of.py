"""The second pass over the raw files of a sweep: what it finds, and what it refuses."""

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.measure.recall import first_hit_ranks
from query.evaluation.metrics import estimates
from query.evaluation.metrics import results_of as module
from query.evaluation.metrics.results_of import results_of
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.ranks import write_ranks
from query.evaluation.raw.timings import Round, write_round
from tests.kit.sweeps import BASELINE, CONDITIONS, both_ways, captioned, condition, vectors_of, write_sweep

DECOMPOSE = {"decompose": {"conditions": ["fast"], "adapter": "scenes", "adapter_saw_distractors": True}}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep over captions and classes, and its results."""
    data = [captioned("photos", 60, 3), captioned("things", 60, 10, kind="classes")]
    folder, _ = write_sweep(tmp_path_factory.mktemp("swept"), data, DECOMPOSE | {"speeds": [9.0, 1e6]})
    return folder, data, results_of(folder)


def test_recall_is_that_of_the_plain_definition(swept):
    _, (photos, _), results = swept
    for one, noise, _ in CONDITIONS:
        images, texts = vectors_of(photos, noise)
        ranks = {
            "image_retrieval": first_hit_ranks(texts, photos.pairs_P2[:, 1], images, np.arange(60)),
            "text_retrieval": first_hit_ranks(images, np.arange(60), texts, photos.pairs_P2[:, 1]),
        }
        metrics = results.of(one.key).on["photos"].metrics
        for task, ranks_q in ranks.items():
            for k in (1, 5, 10):
                assert metrics[f"{task}_recall@{k}"].value == pytest.approx((ranks_q < k).mean())
            assert metrics[f"{task}_mrr"].value == pytest.approx((1 / (ranks_q + 1)).mean())
            median = np.quantile(ranks_q + 1, 0.5, method="inverted_cdf")
            assert metrics[f"{task}_median_rank"].value == median


def test_every_number_lies_in_its_interval_and_differences_are_paired(swept):
    _, _, results = swept
    baseline = results.of(BASELINE)
    for found in results.conditions:
        for name, on in found.on.items():
            for metric, estimate in on.metrics.items():
                assert estimate.low <= estimate.value <= estimate.high, metric
            if found is baseline:
                assert (on.differences, on.fidelity) == ({}, {})
                continue
            assert on.differences.keys() == on.metrics.keys()
            for metric, estimate in on.differences.items():
                apart = on.metrics[metric].value - baseline.on[name].metrics[metric].value
                assert estimate.value == pytest.approx(apart, abs=1e-9), metric
                assert estimate.low <= estimate.value <= estimate.high, metric
    mild = results.of("mild-00000000").on["photos"].differences["image_retrieval_recall@5"]
    assert mild.method == "exact"
    assert mild.detectable > 0


def test_classes_have_accuracy(swept):
    _, (_, things), results = swept
    metrics = results.of(BASELINE).on["things"].metrics
    assert "text_retrieval_recall@1" not in metrics
    images, texts = vectors_of(things, 0.0)
    best = (images @ texts.T).argmax(axis=1)
    assert metrics["acc1"].value == pytest.approx((best == np.arange(60) // 10).mean())
    assert metrics["acc5"].value >= metrics["acc1"].value
    # six classes of ten images: the share of them that is among the first 10
    assert 0 <= metrics["image_retrieval_recall@10_p5"].value <= 1


def test_speed_is_taken_within_rounds(swept):
    _, _, results = swept
    for one, _, speedup in CONDITIONS:
        speed = results.of(one.key).speed
        assert speed.speedup.value == pytest.approx(speedup, rel=0.05)
        assert speed.speedup.low <= speed.speedup.value <= speed.speedup.high
        assert (speed.theoretical, speed.num_rounds) == (pytest.approx(speedup), 4)
    # rounds drift by a factor of up to 4, which ratios do not see
    rate, ratio = results.of("fast-00000000").speed.images_per_second, results.of("fast-00000000").speed.speedup
    assert rate.high / rate.low > 2 > 1.1 > ratio.high / ratio.low


def test_rounds_of_other_environments_do_not_count(tmp_path):
    folder, _ = write_sweep(tmp_path, [captioned("photos", 20, 1)], conditions=CONDITIONS[:3])
    before = results_of(folder).of("fast-00000000").speed
    keys = [BASELINE, "fast-00000000"]
    other = {"keys": keys, "seconds": [1.0, 50.0], "num_items": [8, 8], "kind": "tower", "environment_key": "elsewhere"}
    write_round(folder.timings, Round(number=9, block=0, **other))
    assert results_of(folder).of("fast-00000000").speed == before


def test_the_front_and_what_it_recommends(swept):
    _, _, results = swept
    photos, _ = results.fronts
    fast, adapted, mild = (f"{name}-00000000" for name in ("fast", "fast+adapter", "mild"))
    assert photos.metric == "image_retrieval_recall@5"
    assert photos.keys[0] == mild  # loses nothing, and is faster than the baseline
    assert "slow-00000000" not in photos.keys
    assert set(photos.recommended_for_loss.values()) == {mild}
    assert set(photos.speed_at_loss) == {"0.5", "1.0", "2.0"}
    at_loss = photos.speed_at_loss["1.0"]
    assert at_loss.low <= at_loss.value <= at_loss.high
    assert 1.1 < at_loss.value < 2
    # 60 images cannot show that a condition loses so little; only the baseline surely loses nothing
    assert photos.surely_within_loss["0.5"] == [BASELINE]
    assert photos.recommended_for_speed["1000000.0"] is None
    best = max((fast, adapted), key=lambda key: results.of(key).on["photos"].metrics[photos.metric].value)
    rates = {found.condition.key: found.speed.images_per_second.value for found in results.conditions}
    assert rates[mild] < max(rates[fast], rates[adapted])
    folder_speed = {key: rate for key, rate in rates.items() if rate >= 9.0}
    chosen = photos.recommended_for_speed["9.0"]
    values = {key: results.of(key).on["photos"].metrics[photos.metric].value for key in folder_speed}
    assert values[chosen] == max(values.values())
    assert best in (fast, adapted)


def test_steps_add_up(swept):
    _, _, results = swept
    found = results.decompositions[0]
    assert [step.name for step in found.steps] == ["none", "fast", "fast+adapter"]
    first, *steps = found.steps
    assert (first.change, first.from_first) == (None, None)
    assert sum(step.change.value for step in steps) == pytest.approx(steps[-1].from_first.value)
    assert first.total.value + steps[-1].from_first.value == pytest.approx(steps[-1].total.value)
    recovered = steps[-1].change.value / -steps[0].change.value
    assert found.recovery.value == pytest.approx(recovered)
    assert found.notes == []


def test_distractors_and_indexes_are_decomposed(tmp_path):
    index = {"recipe": "IVF4,Flat", "effort": 1, "candidates": 0, "num_bytes": 9}
    more = {"role": "index", "parent": "fast+adapter-00000000", "index": index, "adapter": "scenes"}
    conditions = (*CONDITIONS, condition("IVF4, effort 1", 0.4, 2.0, key="index-1", **more))
    own, wide = captioned("photos", 30, 2), replace(captioned("photos", 30, 2, 20), name="photos+distractors")
    folder, _ = write_sweep(tmp_path, [own, wide], DECOMPOSE, conditions)
    folder.ranks("index-1", "photos").unlink()
    folder.ranks("slow-00000000", "photos+distractors").unlink()
    results = results_of(folder)
    (found,) = results.decompositions
    assert found.data == "photos+distractors"
    assert [step.name for step in found.steps] == ["none", "fast", "fast+adapter", "IVF4, effort 1"]
    changes = sum(step.change.value for step in found.steps[1:])
    assert changes == pytest.approx(found.steps[-1].from_first.value)
    assert found.notes == [
        "The gallery holds 30 images of the data set and 20 distractors.",
        "The adapter was trained on the distractors.",
    ]
    assert [front.data for front in results.fronts] == ["photos"]
    assert set(results.of("index-1").on) == {"photos+distractors"}


def test_the_tree_is_plain_json(swept):
    _, _, results = swept
    assert json.loads(json.dumps(results.as_json(), allow_nan=False)) == results.as_json()


@pytest.mark.parametrize("kind", ["ranks", "images"])
def test_a_missing_file_is_named_with_what_to_run(tmp_path, kind):
    folder, _ = write_sweep(tmp_path, [captioned("photos", 20, 1)], conditions=CONDITIONS[:3])
    path = getattr(folder, kind)("fast-00000000", "photos")
    path.unlink()
    with pytest.raises(StoreError) as caught:
        results_of(folder)
    assert str(caught.value) == (
        f"{path} is missing: condition 'fast' was not measured on data set 'photos'; run `clipsieve sweep grid.yaml "
        "--out x` again, which measures what is missing"
    )


def test_a_file_of_another_split_or_cut_in_the_middle_is_refused(tmp_path):
    photos = captioned("photos", 20, 1)
    folder, record = write_sweep(tmp_path, [photos], conditions=CONDITIONS[:3])
    path, one = folder.ranks("fast-00000000", "photos"), record.condition("fast-00000000")
    other = record.data[0].model_copy(update={"sha256": "f" * 64})
    write_ranks(path, both_ways(photos, 0.5), head_of(record, one, other, "ranks"))
    with pytest.raises(StoreError, match=r"fast-00000000\.ranks\.parquet was measured with another split"):
        results_of(folder)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match=r"fast-00000000\.ranks\.parquet is damaged"):
        results_of(folder)


def test_a_k_above_the_gallery_names_the_key(tmp_path):
    folder, _ = write_sweep(tmp_path, [captioned("photos", 20, 1)], {"ks": [1, 5, 30]})
    with pytest.raises(ConfigError, match=r"^ks.2 = 30: the gallery of 'photos' has only 20 images; give a smaller k$"):
        results_of(folder)


@pytest.mark.parametrize("metric", ["image_retrieval_recall@7", "acc1"])
def test_a_metric_that_no_data_set_has(tmp_path, metric):
    folder, _ = write_sweep(tmp_path, [captioned("photos", 20, 1)], {"metric": metric})
    with pytest.raises(
        ConfigError, match=f"metric = '{metric}': no data set of this sweep has it; expected one of image"
    ):
        results_of(folder)


def test_another_model_has_no_cosines(tmp_path):
    conditions = (*CONDITIONS[:2], condition("other", 0.5, 3.0, model="RN50", pretrained="openai"))
    folder, _ = write_sweep(tmp_path, [captioned("photos", 20, 1)], conditions=conditions)
    folder.images("other-00000000", "photos").unlink()
    results = results_of(folder)
    assert {"cosine_p5", "overlap@10"} <= results.of("mild-00000000").on["photos"].fidelity.keys()
    assert not {"cosine_p5"} & results.of("other-00000000").on["photos"].fidelity.keys()


def test_all_conditions_share_the_draws_and_are_in_memory_one_at_a_time(tmp_path, monkeypatch):
    conditions = (CONDITIONS[0], *(condition(f"c{n}", 0.1 * n, 1 + n / 10) for n in range(1, 7)))
    folder, _ = write_sweep(tmp_path, [captioned("photos", 30, 1)], conditions=conditions)
    num_draws, num_alive, peaks, read = [], [], [], module.read_ranks

    class Counted(estimates.Draws):
        def __init__(self, *args):
            num_draws.append(1)
            super().__init__(*args)

    def counted(*args):
        found = read(*args)
        num_alive.append(1)
        weakref.finalize(found["text_retrieval"].ids_QK, num_alive.pop)
        peaks.append(len(num_alive))
        return found

    monkeypatch.setattr(estimates, "Draws", Counted)
    monkeypatch.setattr(module, "read_ranks", counted)
    results_of(folder)
    assert len(num_draws) == 2  # one for each task
    assert len(peaks) == 7
    assert max(peaks) <= 2  # one may go while the next is read
