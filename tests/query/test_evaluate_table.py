"""What `evaluate` prints."""

import pytest

from query.cli.evaluate import print_results

RECALLS = [f"{task}_recall@{k}" for task in ("image_retrieval", "text_retrieval") for k in (1, 5, 10)]


def condition(name, value, **more):
    plain = {"name": name, "metrics": dict.fromkeys(RECALLS, value), "images_per_second": 40.0, "gmacs": 1.0}
    return plain | {"images_per_second_end_to_end": None, "cosine_to_unpruned": 1.0} | more


@pytest.fixture
def printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def run(delta, speedup, **more):
        pruned = condition("fast", 0.48, deltas=dict.fromkeys(RECALLS, delta), speedup=speedup)
        counts = {"num_failed_images": 0, "num_left_out": 0, "num_images": 20, "num_captions": 100}
        machine = {"device": "cpu", "cpu": "a CPU", "cores": 2, "precision": "fp32", "torch": "2", "date": "today"}
        results = {"model": "scenes", "pretrained": None, "dataset": "photos", "environment": machine, **counts}
        print_results(results | {"conditions": [condition("none", 0.5), pruned]} | more)
        return capsys.readouterr().out

    return run


def test_a_difference_has_its_interval_and_the_loss_that_could_be_shown(printed):
    delta = {"value": -0.02, "ci95": [-0.04, 0.005], "detectable": 0.031}
    text = printed(delta, {"measured": 1.5, "ci95": [1.4, 1.6], "theoretical": 1.7})
    assert "-4.0..+0.5" in text
    assert "1.40..1.60x" in text
    [line] = [line for line in text.splitlines() if "could show a loss of" in line]
    assert line.count("3.1") == 6


def test_8_bits_are_shown_against_the_same_in_float(printed):
    deltas = {name: {"value": -0.004} for name in RECALLS} | {"image_retrieval_recall@1+5+10": {"value": -0.012}}
    against = {"condition": "fast", "deltas": deltas, "fidelity": {"cosine_mean": 0.9954}}
    eight = condition("fast+int8", 0.47, against_float={**against, "speedup": {"measured": 2.13, "ci95": [2.0, 2.2]}})
    text = printed(
        {"value": 0.0, "ci95": [-0.2, 0.2]},
        {"measured": 1.5, "ci95": None, "theoretical": 1.7},
        conditions=[condition("none", 0.5), eight],
    )
    [line] = [line for line in text.splitlines() if "against fast" in line]
    assert line.count("-0.4") == 6
    assert "2.13x" in line
    assert "0.9954" in line


def test_what_is_not_known_is_left_empty(printed):
    delta = {"value": 0.0, "ci95": [-0.2, 0.2]}
    shares = {"of_none": {"value": 0.4, "ci95": None}, "of_none+control": {"value": None, "ci95": None}}
    text = printed(delta, {"measured": 1.5, "ci95": None, "theoretical": 1.7}, recovery=[{"policy": "fast", **shares}])
    assert "1.50x" in text
    words = " ".join(text.split())
    assert "the adapter recovers 40 % of the loss, which may be no loss at all, against the unpruned model" in words
    assert "nothing, because nothing was lost, against the unpruned control" in words
