"""Conditions in int8: calibrated once, kept, and compared with the same conditions in float."""

import shutil

import numpy as np
import pytest

from pipeline.errors import ConfigError, InputError, StoreError
from pipeline.model.quantization.calibration import read_calibration
from query.evaluation.metrics.results_of import results_of
from query.evaluation.raw.timings import read_rounds
from query.evaluation.report.contents import contents_of
from query.evaluation.report.drawing.scatter import styles_of
from query.evaluation.report.markdown import markdown
from tests.kit.few_towers import FewTowers

RAW = ("raw", "vectors", "pictures", "calibrations")
INT8 = "  - {name: eight, policies: [none, balanced], precisions: [int8]}"


@pytest.fixture
def sweep(tmp_path, photos, tiny_model, few_of_all):
    """A sweep of two policies in fp32 and in int8 that has not run yet."""
    sweep = FewTowers(tmp_path, photos, tiny_model)
    sweep.write_grid(policies="[balanced]", more=INT8)
    return sweep


def fingerprints(record):
    return {one.name: one.fingerprint for one in record.conditions}


def test_a_second_run_reads_the_calibrations_and_measures_nothing(sweep):
    first = sweep.run()
    before = sweep.times(*RAW)
    assert len([name for name in before if name.endswith(".safetensors")]) == 2
    assert sweep.run() == first
    assert sweep.times(*RAW) == before
    assert first.warnings[0].startswith("int8 was calibrated on 12 different images (of 12; ")
    found = fingerprints(first)
    assert len(set(found.values())) == 4
    assert len({text for text, _ in (one.split("-") for one in found.values())}) == 1


def test_a_calibration_that_is_gone_or_damaged_is_measured_again_and_is_the_same(sweep):
    first = sweep.run()
    before, whole = sweep.times("raw", "vectors"), sweep.contents("calibrations")
    gone, damaged = sweep.out.calibrations.glob("*.safetensors")
    gone.unlink()
    damaged.write_bytes(b"no tensors")
    assert fingerprints(sweep.run()) == fingerprints(first)
    assert sweep.contents("calibrations") == whole
    assert sweep.times("raw", "vectors") == before


def test_other_images_of_the_calibration_change_int8_alone(sweep, make_image):
    first = fingerprints(sweep.run())
    folder = sweep.root / "more"
    folder.mkdir()
    for number in range(8):
        make_image(40, 40, 100 + number).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    make_image(1, 1).resize((40, 40)).save(folder / "blank.png")
    sweep.write_grid(policies="[balanced]", more=f'{INT8}\ncalibration: {{images: "{folder}"}}')
    before = sweep.times("vectors")
    record = sweep.run()
    assert record.warnings[0].startswith("int8 was calibrated on 8 different images (of 9; blank ones do not count)")
    second = fingerprints(record)
    assert {name for name in first if first[name] != second[name]} == {"none, int8", "balanced, int8"}
    changed = {name for name, time in sweep.times("vectors").items() if before.get(name) != time}
    assert changed
    assert all("int8" in name for name in changed)
    kept = [read_calibration(path) for path in sweep.out.calibrations.glob("*.safetensors")]
    assert [one.made_of.num_images for one in kept] == [9, 9]
    sweep.write_grid(policies="[balanced]", more=f'{INT8}\ncalibration: {{images: "{folder}", num_images: 4, seed: 2}}')
    assert fingerprints(sweep.run())["none, int8"] not in (first["none, int8"], second["none, int8"])


def test_each_condition_in_int8_is_compared_with_the_same_in_float(sweep):
    sweep.run()
    results = results_of(sweep.out)
    by_name = {one.condition.name: one for one in results.conditions}
    for name in ("none", "balanced"):
        eight, whole = by_name[f"{name}, int8"], by_name[name]
        against = eight.on["photos"].against_float
        assert against.key == whole.condition.key
        assert whole.on["photos"].against_float is whole.speedup_over_float is None
        vectors = [np.load(sweep.out.vectors(one.condition.key, "photos") / "00000.npy") for one in (eight, whole)]
        assert against.fidelity["cosine_mean"] == pytest.approx((vectors[0] * vectors[1]).sum(axis=1).mean())
        assert 0.9 < against.fidelity["cosine_mean"] < 1
        metrics = [one.on["photos"].metrics for one in (eight, whole)]
        recall = [sum(found[f"image_retrieval_recall@{k}"].value for k in (1, 5)) for found in metrics]
        assert against.differences["image_retrieval_recall@1+5"].value == pytest.approx(recall[0] - recall[1])
        ratio = eight.speed.speedup.value / whole.speed.speedup.value
        assert eight.speedup_over_float.value == pytest.approx(ratio)
    text = markdown(contents_of(results, sweep.out), ["plot.png"])
    assert "What 8 bits change on photos" in text
    assert "R@1+5, points" in text
    assert "eight, int8" in styles_of(results)


def test_a_missing_file_of_cosines_to_float_is_named(sweep):
    record = sweep.run()
    path = sweep.out.to_float(sweep.key_of("balanced, int8"), "photos")
    path.unlink()
    with pytest.raises(StoreError, match=r"balanced-int8-.*\.float\.parquet is missing: condition 'balanced, int8'"):
        results_of(sweep.out)
    assert sweep.run() == record
    assert path.exists()


def test_int8_that_comes_later_is_timed_with_the_same_in_float(sweep):
    sweep.write_grid(policies="[balanced]")
    sweep.run()
    sweep.write_grid(policies="[balanced]", more="  - {name: eight, policies: [balanced], precisions: [int8]}")
    sweep.run()
    late = [set(timed.keys) for timed in read_rounds(sweep.out.timings) if timed.block == 1]
    assert late == [{sweep.key_of(name) for name in ("none", "balanced", "balanced, int8")}] * 2
    assert results_of(sweep.out).of(sweep.key_of("balanced, int8")).speedup_over_float.value > 0


def test_the_float_type_of_the_baseline_comes_first(sweep):
    record = sweep.run()
    eight = record.condition(sweep.key_of("balanced, int8"))
    half = replace_precision(record.condition(sweep.key_of("balanced")), "bf16")
    assert record.in_float(eight).name == "balanced"
    conditions = [record.conditions[0], half, *record.conditions[1:]]
    assert record.model_copy(update={"conditions": conditions}).in_float(eight).name == "balanced"
    others = [one for one in conditions if one.key != sweep.key_of("balanced")]
    assert record.model_copy(update={"conditions": others}).in_float(eight).precision == "bf16"
    others = [one for one in others if one.precision != "bf16"]
    assert record.model_copy(update={"conditions": others}).in_float(eight) is None


def replace_precision(condition, precision):
    changed = {"precision": precision, "key": f"{condition.key}-{precision}", "name": precision}
    return condition.model_copy(update=changed)


def test_a_calibration_from_a_file(sweep, tmp_path):
    sweep.run()
    file = shutil.copy(next(sweep.out.calibrations.glob("*.safetensors")), tmp_path / "mine.safetensors")
    sweep.write_grid(policies="[balanced]", more=f'{INT8}\ncalibration: {{file: "{file}"}}')
    first = fingerprints(sweep.run())
    assert fingerprints(sweep.run()) == first
    others = [path for path in sweep.out.calibrations.glob("*.s*") if path.read_bytes() != file.read_bytes()]
    other = others[0]
    sweep.write_grid(policies="[balanced]", more=f'{INT8}\ncalibration: {{file: "{other}"}}')
    second = fingerprints(sweep.run())
    assert {name for name in first if first[name] != second[name]} == {"none, int8", "balanced, int8"}


def test_a_calibration_of_another_model_names_the_line(sweep, tmp_path):
    sweep.run()
    file = shutil.copy(next(sweep.out.calibrations.glob("*.safetensors")), tmp_path / "mine.safetensors")
    more = f'  - {{name: small, image_sizes: [16], precisions: [int8]}}\ncalibration: {{file: "{file}"}}'
    sweep.write_grid(policies="[balanced]", more=more)
    with pytest.raises(
        InputError, match=r"grid\.yaml, line 11: condition '16 px, int8': calibration .*mine\.safet.*is of a tower with"
    ):
        sweep.run()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("calibration: {num_images: 4}", r"line 11: calibration: no condition is in int8; add int8 to `precisions`"),
        (f"{INT8}\ncalibration: {{images: nowhere}}", r"line 12: calibration\.images = 'nowhere': there is nothing"),
        (f"{INT8}\ncalibration: {{file: nowhere}}", r"line 12: calibration\.file = 'nowhere': there is nothing"),
        (
            f"{INT8}\ncalibration: {{file: x, seed: 1}}",
            r"line 12: calibration: with a file nothing is measured.* seed",
        ),
        (f"{INT8}\ncalibration: {{num_images: 0}}", r"line 12: calibration\.num_images = 0: "),
        ("  - {name: x, precisions: [int4]}", r"line 11: series\.1\.precisions\.0 = 'int4': .*'int8', 'fp8' or '8bit'"),
    ],
)
def test_wrong_keys_name_the_line(sweep, more, message):
    sweep.write_grid(policies="[balanced]", more=more)
    with pytest.raises(ConfigError, match=message):
        sweep.run()


def test_images_that_cannot_be_decoded_are_no_calibration(sweep):
    folder = sweep.root / "broken"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    sweep.write_grid(policies="[balanced]", more=f'{INT8}\ncalibration: {{images: "{folder}"}}')
    with pytest.raises(InputError, match=r"condition 'none, int8': none of the 1 images of .*broken .*'a\.png'"):
        sweep.run()
