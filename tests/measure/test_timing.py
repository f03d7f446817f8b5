"""Side-by-side timing: what counts, and the order of conditions."""

import json

import numpy as np
import pytest
import torch

from pipeline.measure.timing import (
    interleaved_seconds,
    median_rates,
    median_speedup,
    open_clip_call,
    peak_bytes,
    tower_call,
)
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import choose_policy
from pipeline.model.spec import ModelSource
from query.cli.main import main


def test_rounds_are_interleaved_and_the_first_is_discarded():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleaved_seconds(calls, rounds=3)
    assert "".join(order) == "abccbaabccba"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_medians():
    rates = {"none": [1.0, 10.0, 2.0], "pruned": [3.0, 20.0, 3.0]}
    assert median_rates(rates) == {"none": 2.0, "pruned": 3.0}
    assert (
        median_speedup(rates, "pruned", "none") == 2.0
    )  # the median of the ratios 3, 2 and 1.5, not the ratio of medians


def test_peak_bytes_is_the_memory_held_at_once():
    x = torch.zeros(1000, 1000)
    one, three = peak_bytes(lambda: x + 1), peak_bytes(lambda: [x + n for n in range(3)])
    assert 4e6 <= one < 5e6
    assert 12e6 <= three < 13e6
    assert peak_bytes(lambda: [(x + n).sum() for n in range(3)]) < 5e6  # released before the next


def test_copies_share_only_their_weights(tiny_model):
    loaded = load_model(ModelSource(model=tiny_model), "fp32", "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    one, two = sharing_weights(loaded), sharing_weights(loaded)
    assert one.clip.visual.conv1.weight is two.clip.visual.conv1.weight
    before = Encoder(one, None).encode(pixels)
    pruned = Encoder(two, choose_policy(None, 0.5)).encode(pixels)
    assert not np.allclose(pruned, before, atol=1e-3)
    np.testing.assert_array_equal(Encoder(one, None).encode(pixels), before)


def test_tower_calls_compute_the_same_as_encode_and_open_clip(tiny_model):
    loaded = load_model(ModelSource(model=tiny_model), "fp32", "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    encoder = Encoder(sharing_weights(loaded), None)
    features = torch.nn.functional.normalize(tower_call(encoder, pixels)(), dim=-1)
    np.testing.assert_allclose(features, encoder.encode(pixels), atol=1e-6)
    assert open_clip_call(sharing_weights(loaded), pixels, is_compiled=False)().shape == (2, 32)


def test_bench_model(tiny_model, tmp_path, capsys):
    path = tmp_path / "results.json"
    argv = ["bench", "model", "--model", tiny_model, "--policies", "reference,balanced", "--rounds", "2"]
    assert (
        main(
            [
                *argv,
                "--batches",
                "1",
                "--batch-size",
                "3",
                "--precision",
                "fp32",
                "--device",
                "cpu",
                "--json-file",
                str(path),
            ]
        )
        == 0
    )
    results = json.loads(path.read_text())
    assert [c["name"] for c in results["conditions"]] == ["open_clip", "none", "reference", "balanced"]
    assert (results["precision"], results["batch_size"], results["image_size"]) == ("fp32", 3, [32, 32])
    policies = [condition["policy"] and condition["policy"]["name"] for condition in results["conditions"]]
    assert policies == [None, None, "reference", "balanced"]
    for condition in results["conditions"]:
        low, high = condition["range"]
        assert 0 < low <= condition["images_per_second"] <= high
        assert condition["peak_bytes"] > 0
    none = results["conditions"][1]
    assert none["measured"] == none["theoretical"] == 1.0
    assert all(condition["theoretical"] > 1.1 for condition in results["conditions"][2:])
    assert "balanced" in capsys.readouterr().out


def test_bench_model_times_every_policy_in_every_precision(tiny_model, tmp_path, capsys):
    path = tmp_path / "results.json"
    argv = ["bench", "model", "--model", tiny_model, "--policies", "none,balanced", "--precisions", "fp32,int8"]
    argv += ["--rounds", "2", "--batches", "1", "--batch-size", "2", "--device", "cpu", "--json-file", str(path)]
    assert main(argv) == 0
    found = json.loads(path.read_text())["conditions"]
    rows = [(condition["name"], condition["precision"]) for condition in found if condition["name"] != "open_clip"]
    assert rows == [("none", "fp32"), ("balanced", "fp32"), ("none", "int8"), ("balanced", "int8")]
    calls = [condition["precision"] for condition in found if condition["name"] == "open_clip"]
    assert calls[0] == "fp32"
    assert "int8" not in calls
    assert all((condition["over_float"] is None) == (condition["precision"] != "int8") for condition in found)
    fastest = max(found[: len(calls)], key=lambda one: one["images_per_second"])
    assert fastest["over_open_clip"] == 1.0
    assert found[len(calls)]["measured"] == 1.0
    assert "over float" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("precisions", "message"),
    [
        ("fp32,int4", "precision = 'fp32,int4': expected precisions among auto, fp32"),
        ("int8,fp32,int8", "precision = 'int8,fp32,int8': a precision is named twice"),
    ],
)
def test_a_list_of_precisions_names_what_it_can_hold(precisions, message, capsys):
    assert main(["bench", "model", "--precisions", precisions]) == 2
    assert message in capsys.readouterr().err


def test_int8_is_not_compiled(tiny_model, capsys):
    argv = ["bench", "model", "--model", tiny_model, "--precision", "int8", "--device", "cpu", "--compile"]
    assert main(argv) == 2
    assert "leave out --compile, or int8" in capsys.readouterr().err


def test_a_missing_gpu_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "model", "--device", "cuda"]) == 2
    assert "device = 'cuda': torch finds no GPU" in capsys.readouterr().err
