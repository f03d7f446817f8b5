"""The text tower of a store: loaded as the store's record says, and checked against it."""

from pipeline.errors import FingerprintMismatch
from pipeline.model.device import pick_device
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ClaimedSpec, DeviceChoice, EncoderSpec


def text_encoder(spec: EncoderSpec | ClaimedSpec, device: DeviceChoice = "auto") -> Encoder:
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
    encoder = Encoder(load_model(source, "fp32", pick_device("cpu" if device == "auto" else device)), policy=None)
    if isinstance(spec, ClaimedSpec) and spec.known_text_space is None:
        _refuse_other_dimension(spec, encoder.spec)
    elif encoder.spec.text_space != spec.text_space:
        raise FingerprintMismatch(
            f"the store's images are in text space {spec.text_space[:16]}, but model {spec.source.model} has "
            f"{encoder.spec.text_space[:16]}: its weights changed; restore them, or embed again"
        )
    return encoder


def _refuse_other_dimension(claimed: ClaimedSpec, found: EncoderSpec) -> None:
    """The model could not be loaded when its embeddings were imported, so their size is all there is to compare."""
    if found.embedding_dim != claimed.embedding_dim:
        raise FingerprintMismatch(
            f"the store's imported embeddings have {claimed.embedding_dim} values, but those of model "
            f"{claimed.source.model}, which is said to have made them, have {found.embedding_dim}; import them again "
            "with the --model that made them"
        )
