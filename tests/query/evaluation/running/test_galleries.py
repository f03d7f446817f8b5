"""Galleries without the images that cannot be decoded, and with distractors."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry
from query.evaluation.data.data_set import DataSet
from query.evaluation.running.galleries import galleries_of, without
from query.evaluation.running.kept.images import Image

# images 0 to 2 are its own, 3 and 4 are distractors; query 2 has two right images
DATA = DataSet(
    name="five",
    kind="captions",
    location="here",
    entries=[ImageEntry(f"{number}.jpg", f"file:///{number}.jpg", 1, 1) for number in range(5)],
    num_own=3,
    titles=["a", "b", "c", "d"],
    prompts=[["a"], ["b"], ["c"], ["d"]],
    pairs_P2=np.array([[0, 0], [1, 1], [2, 1], [2, 2], [3, 2]]),
    grades_P=np.array([1, 2, 3, 4, 5], np.float32),
    counts={"num_left_out": 7},
)


def gone(*numbers):
    return np.isin(np.arange(5), numbers)


def looked(*failed):
    return [
        Image(entry.key, "state", f"hash-{place}", "undecodable: broken" if place in failed else None)
        for place, entry in enumerate(DATA.entries)
    ]


def test_queries_go_with_the_only_image_that_answers_them():
    left = without(DATA, gone(1, 4))
    assert [entry.key for entry in left.entries] == ["0.jpg", "2.jpg", "3.jpg"]
    assert list(left.titles) == ["a", "c", "d"]
    assert left.pairs_P2.tolist() == [[0, 0], [1, 1], [2, 1]]
    assert left.grades_P.tolist() == [1, 4, 5]
    assert left.num_own == 2
    found = {name: left.counts[name] for name in ("num_images", "num_own", "num_distractors", "num_queries")}
    assert found == {"num_images": 3, "num_own": 2, "num_distractors": 1, "num_queries": 3}
    assert (left.counts["num_failed"], left.counts["num_left_out"]) == (2, 7)


def test_a_class_without_images_is_still_a_wrong_answer():
    left = without(replace(DATA, kind="classes"), gone(0))
    assert list(left.titles) == ["a", "b", "c", "d"]
    assert left.pairs_P2.tolist() == [[1, 0], [2, 0], [2, 1], [3, 1]]


def test_nothing_is_left_out_where_nothing_failed():
    left = without(DATA, gone())
    assert left.sha256 == DATA.sha256
    assert left.counts["num_failed"] == 0


def test_a_query_that_nothing_answers_stays():
    data = replace(DATA, pairs_P2=DATA.pairs_P2[1:], grades_P=DATA.grades_P[1:])
    assert list(without(data, gone(0)).titles) == ["a", "b", "c", "d"]


def test_distractors_make_a_second_gallery_that_shares_the_vectors_of_its_own_images():
    plain, whole = galleries_of(DATA, looked(1, 3), ["n", "a", "b"], ["n", "a"])
    assert (plain.data.name, whole.data.name) == ("five", "five+distractors")
    assert (plain.keys, whole.keys) == ({"n", "a", "b"}, {"n", "a"})
    assert [len(part.entries) for part in whole.parts] == [2, 1]
    assert plain.parts == whole.parts[:1]
    assert plain.data.counts["num_failed"] == 1
    assert whole.data.counts["num_failed"] == 2
    assert plain.data.sha256 != whole.data.sha256
    assert plain.data.pairs_P2.tolist() == whole.data.pairs_P2.tolist()


def test_without_a_decomposition_there_is_one_gallery():
    (plain,) = galleries_of(DATA, looked(), ["n"], [])
    assert plain.data.counts["num_distractors"] == 0


def test_a_data_set_of_which_nothing_can_be_decoded_is_refused():
    with pytest.raises(
        InputError, match=r"'five': no image that answers a query is left of 5; .* '0.jpg': undecodable"
    ):
        galleries_of(DATA, looked(0, 1, 2), ["n"], [])
