"""The encoder of imported embeddings: the model that is claimed, compared with what can be loaded here."""

from collections.abc import Callable

from pipeline.errors import InputError
from pipeline.imported.files import Embeddings
from pipeline.model.spec import ClaimedSpec, ModelSource


def claimed_spec(found: Embeddings, source: ModelSource, on_warning: Callable[[str], None]) -> ClaimedSpec:
    """The claimed model as the encoder of a new store. Loads the model if it is here.

    Args:
        found: The embeddings.
        source: The model that is said to have made them.
        on_warning: Called if the model cannot be loaded: then the store is as good, but its text space is unknown.

    Raises:
        InputError: If the model has embeddings of another size.
        ConfigError: If the model cannot be what is meant, such as an open_clip name without a pretrained tag.
    """
    claim = ClaimedSpec(source=source, embedding_dim=found.dim, precision="fp16" if found.is_half else "fp32")
    try:
        from pipeline.model.load import load_model  # torch takes seconds, and need not be installed

        loaded = load_model(source, "fp32", "cpu").spec
    except (InputError, ImportError) as error:
        on_warning(f"the model cannot be loaded, so its dimension is not compared; search with texts needs it: {error}")
        return claim
    if loaded.embedding_dim != found.dim:
        raise InputError(
            f"the embeddings of {found.source.location} have {found.dim} values, but those of model {source.model} "
            f"have {loaded.embedding_dim}; give the --model that made them"
        )
    return claim.model_copy(update={"known_text_space": loaded.text_space})
