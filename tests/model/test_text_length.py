"""Texts that are longer than a model reads are counted, and a warning says so."""

import pytest

from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource
from pipeline.model.tokenizer import Tokenizer

LONG = "a photo of " + "one more thing and " * 20


@pytest.fixture(scope="module")
def tokenize(tiny_model):
    return load_model(ModelSource(model=tiny_model), "fp32", "cpu").tokenize


def test_the_first_text_that_is_cut(tokenize):
    # 77 tokens: one each for the start and the end, and 75 words
    assert tokenize.context_length == 77
    assert tokenize.count_cut(["cat " * 75], "caption", "captions") == (0, [])
    assert tokenize.count_cut(["cat " * 76], "caption", "captions") == (
        1,
        ["the caption is longer than the 77 tokens that the model reads; the rest is ignored"],
    )


def test_texts_are_counted_and_the_others_left_alone(tokenize):
    texts = ["a cat", LONG, "狗" * 40, "x" * 70, "", LONG]
    num_cut, [warning] = tokenize.count_cut(texts, "query", "queries")
    expected = sum(len(tokenize._loaded().encode(text)) > 75 for text in texts)  # open_clip's own, without a limit
    assert num_cut == expected >= 2
    assert warning.startswith(f"{num_cut} of 6 queries are longer than the 77 tokens")


def test_many_texts(tokenize):
    assert tokenize.count_cut([LONG, "a cat"] * 600, "caption", "captions")[0] == 600


def test_a_tokenizer_whose_padding_is_not_zero(monkeypatch):
    import torch

    class Padded:
        context_length = 4

        def __call__(self, texts, context_length):
            rows = [[7, *map(ord, text), 8][:context_length] for text in texts]
            return torch.tensor([[*row, *[1] * (context_length - len(row))] for row in rows])

    tokenize = Tokenizer("any")
    monkeypatch.setattr(tokenize, "_tokenize", Padded())
    assert [tokenize.count_cut([text], "text", "texts")[0] for text in ("", "ab", "abc", "abcd", "abcde")] == [
        0, 0, 1, 1, 1
    ]  # fmt: skip
