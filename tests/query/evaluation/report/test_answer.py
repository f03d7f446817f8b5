"""The first sentence, and the settings that are recommended."""

from dataclasses import replace

import pytest

from pipeline.model.pruning.policy import named_policy, sharpened
from pipeline.settings.load import load_settings
from query.cli.verbs import settings_class
from query.evaluation.report.answer import answer, chosen, loss_table, speed_table, uses
from query.evaluation.results import Estimate
from tests.kit.results import METRIC, made_results

FAST = ("condition", [("fast", 1.93, 1.1)])


def with_difference(results, name, difference):
    """The results with another loss of one condition."""
    found = next(one for one in results.conditions if one.condition.name == name)
    found.on["flickr8k"].differences[METRIC] = difference
    return replace(results, fronts=[replace(results.fronts[0], recommended_for_loss={"1.0": found.condition.key})])


@pytest.fixture
def results():
    return made_results({"clipsieve": FAST})


def test_a_loss(results):
    found = with_difference(results, "fast", Estimate(-0.011, -0.018, -0.004))
    assert answer(found) == (
        "`fast` is 1.9x (1.9 to 2.0) as fast as the unpruned model and loses 1.1 points (0.4 to 1.8) of R@5 on "
        "`flickr8k`."
    )


def test_a_gain(results):
    found = with_difference(results, "fast", Estimate(0.011, 0.004, 0.018))
    assert answer(found).endswith("and gains 1.1 points (0.4 to 1.8) of R@5 on `flickr8k`.")


def test_a_loss_that_may_be_none_names_what_would_have_shown(results):
    found = with_difference(results, "fast", Estimate(-0.001, -0.005, 0.003, detectable=0.0061))
    assert answer(found).endswith(
        "model. Its difference in R@5 on `flickr8k` cannot be told from 0: \N{MINUS SIGN}0.1 points (\N{MINUS SIGN}0.5 "
        "to +0.3); a loss of 0.6 would most likely have shown."
    )


def test_a_difference_without_an_interval_claims_nothing(results):
    found = with_difference(results, "fast", Estimate(-0.011, float("nan"), float("nan"), "none"))
    assert answer(found).endswith("model. The measured loss of R@5 on `flickr8k` is 1.1 points, without an interval.")


def test_without_timings_there_is_no_speed():
    found = made_results({"clipsieve": FAST}, timed=False)
    assert answer(found) == "`fast` loses 1.1 points (0.6 to 1.6) of R@5 on `flickr8k`. No speed was measured."


def test_without_a_faster_condition_the_answer_says_so(results):
    front = replace(results.fronts[0], recommended_for_loss={"1.0": results.record.baseline.key, "2.0": None})
    assert chosen(replace(results, fronts=[front])).condition.name == "fast"
    only = made_results({"down-scaled input": ("rival", [("192 px", 1.66, 9.0)])})
    assert answer(only) == "Only the unpruned model and its rivals were measured."
    rival = next(one.condition.key for one in only.conditions if one.condition.name == "192 px")
    won = replace(only, fronts=[replace(only.fronts[0], recommended_for_loss={"1.0": rival})])
    assert answer(won).startswith("`192 px` (down-scaled input, a rival) is 1.7x")


def test_the_loss_next_to_one_point_is_taken():
    found = made_results()
    key = {one.condition.name: one.condition.key for one in found.conditions}
    by_loss = {"0.5": key["balanced"], "1.0": None, "2.0": key["lean"], "1.5": key["fast"]}
    assert chosen(replace(found, fronts=[replace(found.fronts[0], recommended_for_loss=by_loss)])).condition.name == (
        "balanced"
    )


def test_recommendations_are_tables_with_intervals():
    found = made_results()
    losses, speeds = (table(found, found.fronts[0], 0) for table in (loss_table, speed_table))
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in losses.groups[0].rows}
    assert rows["1 point of R@5"] == ["`fast+adapter`", "1.92x", "\N{MINUS SIGN}0.3", "`fast+adapter`", "1.95x"]
    assert [row[1].text for row in speeds.groups[0].rows] == [
        "`balanced+adapter`",
        "`lean+adapter`",
        "nothing measured here",
    ]


def test_commands_for_what_is_recommended():
    found = made_results()
    by_name = {use.name: use for use in uses(found)}
    assert by_name["lean+adapter"].command == (
        "clipsieve embed IMAGES --out STORE --model ViT-B-16 --pretrained laion2b_s34b_b88k --policy lean "
        "--adapter adapters/fast --precision bf16"
    )
    assert by_name["lean+adapter"].policy is None


def test_the_command_and_the_policy_can_be_used_as_they_are(tmp_path):
    policy = sharpened(named_policy("balanced"), 1.3)
    found = made_results({"own": ("condition", [(policy.name, 1.38, -0.2)])})
    record = found.conditions[1].condition.model_copy(
        update={"policy": policy.model_dump(mode="json"), "image_size": 192}
    )
    found = replace(found, conditions=[found.conditions[0], replace(found.conditions[1], condition=record)])
    use = next(use for use in uses(found) if use.name == policy.name)
    (tmp_path / "policy.yaml").write_text(use.policy)
    argv = use.command.replace("policy.yaml", f"{tmp_path}/policy.yaml").split()[2:]
    settings = load_settings(settings_class("embed"), "embed", argv, "")
    assert settings.pruning_policy() == policy
    assert (settings.image_size, settings.model, settings.precision) == (192, "ViT-B-16", "bf16")
