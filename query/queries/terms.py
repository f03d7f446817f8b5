"""Texts as queries: a plain text, or a weighted sum such as `"beach" + 0.5*"sunset" - "people"`.

Shapes: Q queries, E embedding width.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError, InputError

SLOT = "{}"
"""In a template, where the text goes."""
EXAMPLE = '"beach" + 0.5*"sunset" - "people"'

_SIGN = r"(?P<sign>[+-])\s*"
_TERM = r'(?:(?P<weight>\d+\.?\d*|\.\d+)\s*\*\s*)?"(?P<text>[^"]*)"\s*'
_FIRST = re.compile(rf"\s*(?:{_SIGN})?{_TERM}(?=[+-]|$)")
_NEXT = re.compile(_SIGN + _TERM)
_SHOWN = 20
_SHORTEST = 1e-6


@dataclass(frozen=True, slots=True)
class Term:
    """A text of a sum, and how much it counts."""

    text: str
    weight: float = 1.0


def parse_terms(query: str) -> tuple[Term, ...]:
    """The terms of a query.

    A query is a weighted sum if it begins with a text in double quotation marks, perhaps with a sign and a weight, and
    `+`, `-` or nothing follows. Any other query is one plain text.

    Raises:
        InputError: If the query or a text of the sum is empty, or the sum goes on with something else. The message
            has the position.
    """
    found = _FIRST.match(query)
    if found is None:
        if not query.strip():
            raise InputError("the query is empty; describe what to look for")
        return (Term(query),)
    terms, end = [_term(found)], found.end()
    while end < len(query):
        found = _NEXT.match(query, end)
        if found is None:
            raise InputError(
                f"query: expected + or - and a text in double quotation marks at character {end + 1}, found "
                f"{query[end : end + _SHOWN]!r}; an example of a weighted sum is {EXAMPLE}"
            )
        terms.append(_term(found))
        end = found.end()
    return tuple(terms)


def check_templates(templates: Sequence[str]) -> None:
    """Refuse templates without a place for the text.

    Raises:
        ConfigError: If `{}` is missing.
    """
    for template in templates:
        if SLOT not in template:
            raise ConfigError(
                f"template {template!r} has no {SLOT}, where the text goes; for example 'a photo of a {SLOT}'"
            )


def vectors_of(
    sums: Sequence[Sequence[Term]], templates: Sequence[str], encode_texts: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """The vectors of weighted sums.

    Args:
        sums: The terms of each query.
        templates: Each term stands for the mean of its vectors in these sentences, as in zero-shot classification
            with CLIP (Radford et al. 2021, section 3.1.4). Without any, for its own vector.
        encode_texts: Embeds texts: unit float32 [n, E].

    Returns:
        Unit float32 [Q, E].

    Raises:
        InputError: If the terms of a sum cancel out.
    """
    sentences = list(templates) or [SLOT]
    texts = list(dict.fromkeys(term.text for terms in sums for term in terms))
    encoded = encode_texts([sentence.replace(SLOT, text) for text in texts for sentence in sentences])
    means_TE = encoded.reshape(len(texts), len(sentences), -1).mean(axis=1)
    by_text = dict(zip(texts, unit_rows(means_TE, "the templates of a text cancel out"), strict=True))
    sums_QE = np.stack([sum(term.weight * by_text[term.text] for term in terms) for terms in sums])
    return unit_rows(sums_QE, "the weighted sum is zero: its terms cancel out; change a weight")


def unit_rows(vectors_QE: np.ndarray, fault: str) -> np.ndarray:
    """Vectors at unit length (float32 [Q, E]).

    Raises:
        InputError: With the text of `fault`, if one has no length.
    """
    lengths_Q1 = np.linalg.norm(vectors_QE, axis=1, keepdims=True)
    if not (lengths_Q1 > _SHORTEST).all():  # also if it is not a number
        raise InputError(fault)
    return (vectors_QE / lengths_Q1).astype(np.float32, copy=False)


def _term(found: re.Match[str]) -> Term:
    text = found["text"]
    if not text.strip():
        raise InputError(f"query: the text at character {found.start('text') + 1} is empty; describe what to look for")
    weight = float(found["weight"] or 1.0)
    return Term(text, -weight if found["sign"] == "-" else weight)
