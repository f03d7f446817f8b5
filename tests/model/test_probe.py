"""The precision of `auto` is the one that was measured to be fastest; the measurement is kept per machine and shape."""

import json
import re

import pytest
import torch

from pipeline.model import probe
from pipeline.model.encode import sharing_weights
from pipeline.model.load import load_model
from pipeline.model.precision import EIGHT_BITS, Candidate, Measurement
from pipeline.model.spec import ModelSource
from pipeline.model.towers import kernels, onednn
from tests.kit.families import FAMILIES

FP32, BF16, OURS, FP16 = (
    Candidate(precision="fp32"),
    Candidate(precision="bf16"),
    Candidate(precision="bf16", kernels="onednn"),
    Candidate(precision="fp16"),
)
FEATURES = dict.fromkeys(["avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16"], False)
CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The file of measurements, in a folder of this test."""
    monkeypatch.setenv("CLIPSIEVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "precision.json"


@pytest.fixture
def counted(monkeypatch):
    """A CPU that lists bf16 and fp16; each measurement is counted, and takes the seconds that a test sets."""
    calls = []
    monkeypatch.setattr(probe, "cpu_features", lambda: FEATURES | {"avx512_bf16": True, "avx512_fp16": True})
    monkeypatch.setattr(onednn, "computes_bf16", lambda: False)
    seconds = {FP32: [1.0] * 5, BF16: [2.0] * 5, FP16: [0.8] * 5}

    def interleaved(*arguments):
        calls.append(arguments)
        return seconds

    monkeypatch.setattr(probe, "_interleaved", interleaved)
    return calls, seconds


@pytest.fixture
def visual(tiny_model):
    return load_model(ModelSource(model=tiny_model), "fp32", "cpu").clip.visual


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({FP32: [1.0] * 5, BF16: [0.97] * 5}, FP32),
        ({FP32: [1.0] * 5, BF16: [0.9] * 5}, BF16),
        ({FP32: [1.0] * 5, BF16: [0.9] * 5, OURS: [0.5] * 5}, OURS),
        ({FP32: [1.0] * 5, BF16: [0.9] * 5, OURS: [0.88] * 5}, BF16),
        ({FP32: [1.0] * 5, BF16: [1.5] * 5, OURS: [1.4] * 5, FP16: [0.8] * 5}, FP16),
        ({FP32: [1.0, 1.4, 1.0, 1.4, 1.0], BF16: [0.99, 0.9, 0.99, 0.9, 0.9]}, FP32),  # disturbed: in too few rounds
        ({FP32: [1.0, 1.4, 1.0, 1.4, 1.0], BF16: [0.9, 0.9, 0.99, 0.9, 0.9]}, BF16),
    ],
)
def test_another_precision_must_win_clearly(seconds, chosen):
    assert probe._result(seconds).chosen == chosen


def test_speeds_are_relative_to_float32_in_the_same_round():
    found = probe._result({FP32: [1.0, 2.0, 4.0], BF16: [0.5, 1.0, 2.0], OURS: [2.0, 4.0, 8.0]})
    assert found.speeds == {"fp32": 1.0, "bf16": 2.0, "bf16 by onednn": 0.5}
    assert found.is_disturbed
    assert "bf16 by onednn 0.50; other load disturbed the measurement" in found.describe()
    assert found.kernels_in("bf16") == "torch"
    assert found.for_training() == "bf16"
    assert Measurement(chosen=FP32, speeds={}).describe() == "fp32, not measured"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({}, [FP32]),
        ({"avx512_bf16": True}, [FP32, BF16, OURS]),
        ({"amx_bf16": True}, [FP32, BF16, OURS]),
        ({"amx_bf16": True, "avx512_fp16": True}, [FP32, BF16, OURS, FP16]),
    ],
)
def test_candidates_are_what_the_cpu_lists(monkeypatch, features, expected):
    monkeypatch.setattr(probe, "cpu_features", lambda: FEATURES | features)
    monkeypatch.setattr(onednn, "computes_bf16", lambda: True)
    assert probe.candidates_of(CPU) == expected


def test_it_is_measured_once_per_machine_and_shape(cache, counted, visual):
    calls, _ = counted
    first = probe.measure(visual, CPU, 8)
    assert (first.chosen, len(calls)) == (FP16, 1)
    assert probe.measure(visual, CPU, 8) == first
    assert len(calls) == 1
    probe.measure(visual, CPU, 16)
    assert len(calls) == 2
    keys = list(json.loads(cache.read_text())["found"])
    assert ["batch 8" in key for key in keys] == [True, False]
    assert all(torch.__version__ in key for key in keys)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"found": {"x": {"chosen": "fp8"}}}', b"\xff\xfe"])
def test_a_damaged_cache_is_ignored_and_written_again(cache, counted, visual, content):
    cache.parent.mkdir()
    cache.write_bytes(content)
    found = probe.measure(visual, CPU, 8)
    assert list(json.loads(cache.read_text())["found"].values()) == [found.model_dump(mode="json")]


def test_a_measurement_of_another_version_does_not_count(cache, counted, visual, monkeypatch):
    calls, _ = counted
    probe.measure(visual, CPU, 8)
    monkeypatch.setattr(probe, "__version__", "0.0")
    probe.measure(visual, CPU, 8)
    assert len(calls) == 2
    assert len(json.loads(cache.read_text())["found"]) == 2


def test_a_folder_that_cannot_be_written_does_without(tmp_path, counted, visual, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLIPSIEVE_CACHE", str(tmp_path / "file" / "cache"))
    calls, _ = counted
    assert probe.measure(visual, CPU, 8) == probe.measure(visual, CPU, 8)
    assert len(calls) == 2


def test_a_disturbed_measurement_is_repeated_and_not_kept(cache, counted, visual):
    calls, seconds = counted
    seconds[FP32] = [1.0, 1.5, 1.0, 1.5, 1.0]
    assert probe.measure(visual, CPU, 8).is_disturbed
    assert len(calls) == 2
    assert not cache.exists()


def test_auto_loads_what_was_measured(cache, counted, tiny_model):
    loaded = load_model(ModelSource(model=tiny_model), "auto", "cpu")
    assert loaded.spec.precision == "fp16"
    assert loaded.measurement.chosen == FP16
    assert loaded.clip.visual.conv1.weight.dtype == torch.float16
    assert load_model(ModelSource(model=tiny_model), "fp32", "cpu").measurement is None


@pytest.mark.parametrize(("speed", "expected"), [(0.5, "onednn"), (3.0, "torch")])
def test_bf16_is_computed_by_the_faster_kernels(cache, counted, tiny_model, speed, expected):
    _, seconds = counted
    seconds[OURS] = [speed] * 5
    loaded = load_model(ModelSource(model=tiny_model), "bf16", "cpu")
    assert loaded.kernels == sharing_weights(loaded).kernels == expected
    assert loaded.measurement.chosen == Candidate(precision="bf16", kernels=expected)
    kept = load_model(ModelSource(model=tiny_model), "bf16", "cpu", kernels="onednn")  # a store keeps its own
    assert (kept.kernels, kept.measurement) == ("onednn", None)
    assert loaded.kernels == expected  # models in one process do not affect each other


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_is_measured(make, monkeypatch):
    monkeypatch.setattr(probe, "cpu_features", lambda: FEATURES | {"avx512_bf16": True})
    monkeypatch.setattr(kernels, "WIDE_HEADS", 16)
    found = probe.measure(make().eval(), CPU, 4)
    assert list(found.speeds) == [str(candidate) for candidate in probe.candidates_of(CPU)]


@pytest.mark.usefixtures("cache")
def test_this_machine_is_measured(visual):
    found = probe.measure(visual, CPU, 8)
    assert set(found.speeds) == ({str(candidate) for candidate in probe.candidates_of(CPU)} if found.speeds else set())
    assert found.chosen in probe.candidates_of(CPU)


@pytest.mark.usefixtures("cache")
def test_8_bits_are_measured_if_asked_for_and_never_chosen_by_auto(visual):
    found = probe.measure(visual, CPU, 8, eight_bits=True)
    assert found.gain_of_8_bits() > 0
    assert "int8" in found.speeds
    assert found.chosen.precision not in EIGHT_BITS
    assert probe.measure(visual, CPU, 8).gain_of_8_bits() is None


def measured(eight_bits):
    return Measurement(chosen=FP32, speeds={"fp32": 1.0, "bf16": 2.0, **eight_bits})


def test_8_bits_that_are_hardly_faster_are_doubted(monkeypatch):
    monkeypatch.setattr(probe, "cpu_features", lambda: FEATURES | {"avx_vnni": True})
    assert probe.slow_8_bits(measured({"int8": 2.05, "int8 by onednn": 1.0})) == (
        "8 bits were measured at 1.02 times the speed of the fastest float type, and they cost recall (this CPU lists "
        "avx_vnni); give --precision auto"
    )
    assert probe.slow_8_bits(measured({"int8": 2.2})) is None
    assert probe.slow_8_bits(measured({})) is None


def test_a_cpu_without_8_bit_products_is_mentioned_whatever_they_gain(monkeypatch):
    monkeypatch.setattr(probe, "cpu_features", lambda: FEATURES)
    for speed, said in ((2.05, "1.02 times .*; give --precision auto"), (2.4, "1.20 times .*; --precision auto costs")):
        assert re.search(said, probe.slow_8_bits(measured({"int8": speed})))
        assert "lists neither AVX512-VNNI nor AVX-VNNI" in probe.slow_8_bits(measured({"int8": speed}))
    assert probe.slow_8_bits(measured({"fp8": 2.4})) is None
    assert "CPU" not in probe.slow_8_bits(measured({"fp8": 2.05}))


@pytest.mark.parametrize(("speed", "expected"), [(0.3, "onednn"), (3.0, "torch")])
def test_attention_beside_int8_is_computed_by_the_faster_kernels(cache, counted, tiny_model, speed, expected):
    _, seconds = counted
    seconds |= {Candidate(precision="int8"): [0.5] * 5, Candidate(precision="int8", kernels="onednn"): [speed] * 5}
    loaded = load_model(ModelSource(model=tiny_model), "int8", "cpu")
    assert loaded.kernels == expected
    assert loaded.measurement.chosen == Candidate(precision="int8", kernels=expected)
