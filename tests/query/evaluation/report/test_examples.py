"""Which queries are shown, and what is said of them."""

import pytest

from pipeline.errors import StoreError
from query.evaluation.raw.data import read_data
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.report.answer import chosen
from query.evaluation.report.examples import examples_of
from tests.kit.results import made_results
from tests.kit.sweep_folder import made_folder

TASK = "image_retrieval"


@pytest.fixture(scope="module")
def results():
    return made_results()


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    return made_folder(tmp_path_factory.mktemp("sweep") / "out", results)


def strict_ranks(folder, key):
    answers = read_ranks(folder.ranks(key, "flickr8k"))[TASK]
    return (1 + answers.above_Q + answers.tied_Q).tolist()


def test_the_largest_fall_comes_first_and_agreement_last(results, folder):
    found = chosen(results)
    examples = examples_of(results, folder, found)
    was, now = (strict_ranks(folder, key) for key in (results.record.baseline.key, found.condition.key))
    titles = read_data(folder.data("flickr8k")).titles
    shown = [titles.index(example.title) for example in examples]
    falls = [now[query] / was[query] for query in range(len(was))]
    assert falls[shown[0]] == max(falls)
    assert falls[shown[0]] >= falls[shown[1]] > 1
    assert [now[query] == was[query] for query in shown[-2:]] == [True, True]
    assert (
        examples[0].story
        == f"The right image is at rank {was[shown[0]]} unpruned, and at rank {now[shown[0]]} with `fast+adapter`."
    )


def test_no_two_examples_are_of_one_image(results, folder):
    titles = [example.title for example in examples_of(results, folder, chosen(results))]
    images = [title.split()[1] for title in titles]
    assert len(set(images)) == len(images) >= 4


def test_the_choice_is_the_same_every_time(results, folder):
    first, second = (examples_of(results, folder, chosen(results)) for _ in range(2))
    assert first == second


def test_hits_are_those_of_the_raw_file_and_the_right_one_is_marked(results, folder):
    tables = read_data(folder.data("flickr8k"))
    for example in examples_of(results, folder, chosen(results)):
        query = tables.titles.index(example.title)
        keys = (results.record.baseline.key, chosen(results).condition.key)
        for side, key in zip(example.sides, keys, strict=True):
            ids = read_ranks(folder.ranks(key, "flickr8k"))[TASK].ids_QK[query, :5].tolist()
            assert [hit.key for hit in side.hits] == [tables.keys[number] for number in ids]
            assert [hit.is_right for hit in side.hits] == [number == query // 2 for number in ids]
            assert any(hit.is_right for hit in side.hits) == (side.rank <= 5)


def test_missing_ranks_are_named(results, tmp_path):
    folder = made_folder(tmp_path / "out", results)
    gone = folder.ranks(chosen(results).condition.key, "flickr8k")
    gone.unlink()
    with pytest.raises(StoreError, match=f"{gone.name} is missing"):
        examples_of(results, folder, chosen(results))
