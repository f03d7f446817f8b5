"""Numbers as people read them."""

import pytest

from query.evaluation.report import words
from query.evaluation.results import Estimate


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("image_retrieval_recall@5", "R@5"),
        ("text_retrieval_recall@1", "image to text R@1"),
        ("image_retrieval_recall@5(epsilon)", "R@5 (epsilon)"),
        ("image_retrieval_recall@10_p5", "R@10 p5"),
        ("image_retrieval_median_rank", "median rank"),
        ("image_retrieval_mrr", "MRR"),
        ("image_retrieval_ndcg@10", "nDCG@10"),
        ("acc1", "accuracy@1"),
    ],
)
def test_names_of_metrics(metric, name):
    assert words.short(metric) == name


@pytest.mark.parametrize(
    ("metric", "estimate", "expected"),
    [
        (
            "image_retrieval_recall@5",
            Estimate(-0.0114, -0.018, 0.002),
            ("\N{MINUS SIGN}1.1", "\N{MINUS SIGN}1.8 to +0.2"),
        ),
        ("image_retrieval_recall@5", Estimate(-0.0001, -0.0002, 0.0001), ("0.0", "0.0 to 0.0")),
        ("image_retrieval_mrr", Estimate(0.0123, 0.01, 0.02), ("+0.012", "+0.010 to +0.020")),
        ("image_retrieval_median_rank", Estimate(1, 0, 2), ("+1.0", "0.0 to +2.0")),
        ("acc1", Estimate(0.5, float("nan"), float("nan"), "none"), ("+50.0", "")),
        ("acc1", Estimate(0.5, float("-inf"), 0.6), ("+50.0", "")),
    ],
)
def test_differences_have_a_true_minus_sign(metric, estimate, expected):
    assert words.difference(metric, estimate) == expected


def test_ratios_and_rates():
    assert words.times(Estimate(1.934, 1.9, 1.97)) == ("1.93x", "1.90 to 1.97")
    assert words.times(Estimate(1, 1, 1, "none")) == ("1.00x", "")
    assert words.rate(Estimate(1234.5, 1200, 1300)) == ("1,234", "1,200 to 1,300")
    assert words.rate(Estimate(12.34, 12, 13)) == ("12.3", "12.0 to 13.0")
