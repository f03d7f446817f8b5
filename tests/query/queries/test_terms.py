"""Weighted sums of texts and templates: what is a sum, what it weighs, and where its faults are."""

import numpy as np
import pytest

from pipeline.errors import ConfigError, InputError
from query.queries.options import DUPLICATE_COSINE, Options
from query.queries.request import Request
from query.queries.terms import Term, parse_terms, vectors_of

VECTORS = {"beach": [1, 0, 0], "sunset": [0, 1, 0], "people": [0.6, 0.8, 0], "a beach.": [0, 0, 1], "x": [-1, 0, 0]}


def encode(texts):
    return np.array([VECTORS[text] for text in texts], np.float32)


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ('"beach" + 0.5*"sunset" - "people"', [("beach", 1), ("sunset", 0.5), ("people", -1)]),
        ('"beach"', [("beach", 1)]),
        ('  - 2 * "a b"+.5*"c"  ', [("a b", -2), ("c", 0.5)]),
        ('"a"-"b"-3*"c"', [("a", 1), ("b", -1), ("c", -3)]),
        ('"+ a *" + "- b"', [("+ a *", 1), ("- b", 1)]),
        ('"a" + "a"', [("a", 1), ("a", 1)]),
        # texts that people write, which are no sums
        ("beach + sunset", [("beach + sunset", 1)]),
        ('"stop" on a red sign', [('"stop" on a red sign', 1)]),
        ('a sign that says "stop"', [('a sign that says "stop"', 1)]),
        ('2 "cats"', [('2 "cats"', 1)]),
        ('"unfinished', [('"unfinished', 1)]),
        ("- a dash", [("- a dash", 1)]),
    ],
)
def test_what_is_a_sum(query, terms):
    assert parse_terms(query) == tuple(Term(text, weight) for text, weight in terms)


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ('"beach" + sunset', "at character 9, found '+ sunset'"),
        ('"beach" + 0.5 "sunset"', "at character 9"),
        ('"beach" - "people" and "dogs"', "at character 20, found 'and \"dogs\"'"),
        ('"beach" +', "at character 9, found '+'"),
        ('"beach" + ""', "the text at character 12 is empty"),
        ('" "', "the text at character 2 is empty"),
        ("", "the query is empty"),
        (" \n\t", "the query is empty"),
    ],
)
def test_faults_of_a_sum_say_where(query, fault):
    for make in (parse_terms, lambda query: Request(text=query)):
        with pytest.raises(InputError) as error:
            make(query)
        assert fault in str(error.value)
        assert "\n" not in str(error.value)


def test_a_sum_weighs_the_vectors_of_its_texts():
    [found] = vectors_of([parse_terms('2*"beach" + "sunset" - "people"')], (), encode)
    wanted = np.array([2 - 0.6, 1 - 0.8, 0])
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-6)
    with pytest.raises(InputError, match="the weighted sum is zero: its terms cancel out"):
        vectors_of([parse_terms('"beach" + "x"')], (), encode)


def test_templates_are_averaged_for_each_text_alone():
    [found] = vectors_of([parse_terms('"beach"')], ("{}", "a {}."), encode)
    np.testing.assert_allclose(found, np.array([1, 0, 1]) / np.sqrt(2), atol=1e-6)
    [once] = vectors_of([parse_terms("beach")], ("{}",), encode)
    np.testing.assert_allclose(once, [1, 0, 0])
    with pytest.raises(ConfigError, match=r"template 'a photo' has no \{\}"):
        Request(text="a", templates=("a photo",))


def test_options_are_checked():
    for wrong in ({"k": 0}, {"unique": 0.0}, {"unique": 1.5}, {"min_relevance": float("nan")}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = "):
            Options(**wrong)
    cosines = [Options(unique=unique).duplicate_cosine for unique in (False, True, 0.9)]
    assert cosines == [None, DUPLICATE_COSINE, 0.9]
    with pytest.raises(InputError, match="nothing is asked"):
        Request()
