"""The text tower of a store: loaded as the store's record says, and checked against it.

The first search with a model loads it in full. Later ones use the copy of its text tower that was kept then, and need
neither torch nor the image tower; see `pipeline.model.text_tower`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.errors import FingerprintMismatch
from pipeline.model.spec import ClaimedSpec, DeviceChoice, EncoderSpec, ModelSource
from pipeline.model.text_tower.compare import plain_encoder
from pipeline.model.text_tower.kept import Keeper
from pipeline.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pipeline.model.encode import Encoder


class TextEncoder(Protocol):
    """Embeds texts. Either a whole `Encoder`, or a text tower alone."""

    tokenize: Tokenizer

    @property
    def text_space(self) -> str:
        """Text space of its vectors."""

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts: float32 [len(texts), E], unit length."""


def text_encoder(spec: EncoderSpec | ClaimedSpec, device: DeviceChoice = "auto") -> TextEncoder:
    """Load the encoder whose text vectors live in the same space as `spec`'s images.

    Texts are embedded in float32, with `auto` on the CPU: they are few, and the text space does not depend on the
    precision of the images.

    Raises:
        ConfigError: If the device is not available.
        FingerprintMismatch: If the model named by the store no longer has the weights the store was made with, or its
            embeddings cannot be those that were imported.
        InputError: If the model cannot be loaded.
    """
    source = spec.source
    if spec.text_adapter is None:  # the adapter changes only the image tower, and may have moved
        source = source.model_copy(update={"adapter": None})
    if device == "cuda":
        return _loaded(spec, source, device)
    keeper = Keeper(source, spec.text_space)
    kept = keeper.read()
    if kept is not None:
        return kept
    encoder = _loaded(spec, source, "cpu")
    weights = encoder.text_weights()
    plain = plain_encoder(encoder.spec, weights, encoder)
    if plain is None:
        return encoder
    keeper.keep(weights, plain)
    return plain  # so that the first search gives the same vectors as later ones


def _loaded(spec: EncoderSpec | ClaimedSpec, source: ModelSource, device: DeviceChoice) -> "Encoder":
    """The whole model, after its weights were compared with those of the store."""
    from pipeline.model.device import pick_device  # torch and open_clip take seconds
    from pipeline.model.encode import Encoder
    from pipeline.model.load import load_model

    encoder = Encoder(load_model(source, "fp32", pick_device(device)), policy=None)
    if isinstance(spec, ClaimedSpec):
        refuse_other_claim(spec, encoder.spec)
    else:
        refuse_other_weights(spec, encoder.spec)
    return encoder


def refuse_other_claim(claimed: ClaimedSpec, found: EncoderSpec) -> None:
    """Compare a claim with the model that was loaded.

    Args:
        claimed: The encoder of imported embeddings.
        found: The model that it names.

    Raises:
        FingerprintMismatch: If it is another model. If it could not be loaded when its embeddings were imported, their
            width is all there is to compare.
    """
    if claimed.known_text_space is not None:
        refuse_other_weights(claimed, found)
    elif found.embedding_dim != claimed.embedding_dim:
        raise FingerprintMismatch(
            f"the store's imported embeddings have {claimed.embedding_dim} values, but those of model "
            f"{claimed.source.model}, which is said to have made them, have {found.embedding_dim}; import them again "
            "with the --model that made them"
        )


def refuse_other_weights(spec: EncoderSpec | ClaimedSpec, found: EncoderSpec) -> None:
    """Compare the text space of a store with that of the model that was loaded.

    Raises:
        FingerprintMismatch: If they differ.
    """
    if found.text_space != spec.text_space:
        raise FingerprintMismatch(
            f"the store's images are in text space {spec.text_space[:16]}, but model {spec.source.model} has "
            f"{found.text_space[:16]}: its weights changed; restore them, or embed again"
        )
