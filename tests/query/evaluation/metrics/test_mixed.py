"""Whether a gallery with the images of two conditions ranks fairly."""

import numpy as np
import pytest

from pipeline.errors import StoreError
from query.evaluation.metrics.mixed import advice
from query.evaluation.metrics.results_of import results_of
from query.evaluation.ranking.rank import answers
from query.evaluation.raw.mixed import MixedAnswers, head_of_mixed, write_mixed
from query.evaluation.results import Estimate
from tests.kit.sweeps import CONDITIONS, captioned, vectors_of, write_sweep

NAMES = ("mild", "fast")


@pytest.fixture
def mixed(tmp_path):
    """A sweep with a mixed gallery, from the vectors of both conditions; and what is found of it."""

    def run(first_NE, second_NE, texts_QE, data):
        folder, record = write_sweep(tmp_path, [data], {"mixed": [NAMES]}, CONDITIONS[:3])
        is_first_N = np.arange(len(data.entries)) % 2 == 0
        drawn, swapped = (
            answers(texts_QE, np.where(half[:, None], first_NE, second_NE), data.pairs_P2)
            for half in (is_first_N, ~is_first_N)
        )
        first, second = (record.condition(f"{name}-00000000") for name in NAMES)
        head = head_of_mixed(record, first, second, record.data[0])
        write_mixed(folder, MixedAnswers(is_first_N=is_first_N, drawn=drawn, swapped=swapped), head)
        [found] = results_of(folder).mixed
        return found

    return run


def test_equal_vectors_get_exactly_half(mixed):
    data = captioned("photos", 40, 2)
    images, texts = vectors_of(data, 0.0)
    found = mixed(images, images, texts, data)
    assert (found.share.value, found.expected, found.k) == (0.5, 0.5, 10)
    assert (found.first, found.second) == ("mild-00000000", "fast-00000000")
    ranks = (-(texts @ images.T)).argsort(axis=1).argsort(axis=1)[np.arange(80), data.pairs_P2[:, 1]]
    for k in (1, 5, 10):
        assert found.recall[f"image_retrieval_recall@{k}"].value == pytest.approx((ranks < k).mean())
    assert found.advice.startswith("Both can share one index: images of 'mild' get 50.0 % of the first 10 hits")


def test_vectors_that_lie_nearer_to_all_texts_get_more(mixed):
    data = captioned("photos", 40, 2)
    images, texts = vectors_of(data, 0.0)
    nearer = images + 0.6 * texts.mean(axis=0) / np.linalg.norm(texts.mean(axis=0))
    nearer /= np.linalg.norm(nearer, axis=1, keepdims=True)
    texts = texts + 0.5 * texts.mean(axis=0) / np.linalg.norm(texts.mean(axis=0))
    texts = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)
    found = mixed(images, nearer.astype(np.float32), texts, data)
    assert found.share.high < 0.45
    assert found.advice.startswith(
        "Do not mix them in one index, but embed all images in one way: images of 'fast' get"
    )


@pytest.mark.parametrize(
    ("low", "value", "high", "expected"),
    [
        (0.49, 0.52, 0.55, "Both can share one index: images of 'a' get 52.0 % of the first 5 hits, where 50 % would"),
        (0.505, 0.52, 0.53, "Both can share one index, though it is not quite fair: images of 'a' get 52.0 %"),
        (0.30, 0.35, 0.40, "Do not mix them in one index, but embed all images in one way: images of 'b' get 65.0 %"),
    ],
)
def test_advice(low, value, high, expected):
    assert advice(Estimate(value, low, high), ("a", "b"), 5).startswith(expected)


def test_a_mixed_gallery_that_was_not_ranked_is_named(tmp_path):
    folder, _ = write_sweep(tmp_path, [captioned("photos", 20, 1)], {"mixed": [NAMES]}, CONDITIONS[:3])
    with pytest.raises(StoreError, match=r"mild-00000000\+fast-00000000.halves.parquet is missing; run"):
        results_of(folder)
