"""Whether a text tower without torch gives the vectors of the whole model: compared before it is used."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pipeline.errors import ClipsieveError
from pipeline.model.spec import EncoderSpec
from pipeline.model.text_tower.encoder import PlainTextEncoder
from pipeline.model.text_tower.plain_tokenizer import PlainTokenizer
from pipeline.model.text_tower.plain_tower import PlainTower
from pipeline.model.text_tower.shape import shape_of

TOLERANCE = 1e-6
"""Largest difference of a value of a unit vector."""

_TEXTS = ["A dog's 2 brown puppies, caf\u00e9 &amp; snow!", "a very long description of a photograph, " * 20]


class Reference(Protocol):
    """The whole model."""

    def tokenize(self, texts: list[str]) -> Any:
        """Token ids of texts."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts."""


def plain_encoder(
    spec: EncoderSpec, weights: Mapping[str, np.ndarray], reference: Reference
) -> PlainTextEncoder | None:
    """The text tower of a model in numpy; None if it is of another kind, or gives other tokens or vectors.

    Args:
        spec: What was loaded.
        weights: float32 weights of the text tower, by their names in open_clip's `CLIP`.
        reference: The model itself.
    """
    shape = shape_of(spec.architecture)
    if shape is None:
        return None
    try:
        found = PlainTextEncoder(PlainTower(weights, shape), PlainTokenizer(shape.context_length), spec.text_space)
        if not np.array_equal(found.tokenize(_TEXTS), np.asarray(reference.tokenize(_TEXTS))):
            return None
        is_same = np.allclose(found.encode_texts(_TEXTS), reference.encode_texts(_TEXTS), rtol=0, atol=TOLERANCE)
    except ClipsieveError:
        raise
    except Exception:  # other weights, or another open_clip: then the whole model is used
        return None
    return found if is_same else None
