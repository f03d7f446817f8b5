"""The tokenizer of a model, by its open_clip name."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

_TEXTS = 256  # texts to tokenize at once


class Tokenizer:
    """open_clip's tokenizer for a model, loaded on first use: images can be embedded without it."""

    def __init__(self, name: str) -> None:
        """Refer to the tokenizer of the model with this open_clip name."""
        self._name = name
        self._tokenize: Callable[..., Tensor | np.ndarray] | None = None

    def __call__(self, texts: list[str]) -> "Tensor | np.ndarray":
        """Token ids [len(texts), context length]; longer texts are cut."""
        return self._loaded()(texts)

    @property
    def context_length(self) -> int:
        """Number of tokens that the model reads of a text, including those that mark its start and end."""
        return self._loaded().context_length

    def count_cut(self, texts: Sequence[str], one: str, many: str) -> tuple[int, list[str]]:
        """How many texts are longer than the model reads, and a warning if there are any.

        Args:
            texts: The texts.
            one: What one of them is, for the warning.
            many: What several of them are.
        """
        num_cut = self._num_cut(texts)
        what = f"the {one} is" if len(texts) == 1 else f"{num_cut} of {len(texts)} {many} are"
        warning = f"{what} longer than the {self.context_length} tokens that the model reads; the rest is ignored"
        return num_cut, [warning] if num_cut else []

    def _num_cut(self, texts: Sequence[str]) -> int:
        length = self.context_length
        # a token is at least one byte long, and two tokens mark the start and the end
        long = [text for text in texts if len(text.encode("utf-8", "replace")) + 2 > length]
        num_cut = 0
        for first in range(0, len(long), _TEXTS):
            # with more room, only the texts that are cut reach beyond the context; an empty text shows the padding
            tokens = np.asarray(self._loaded()(["", *long[first : first + _TEXTS]], context_length=length + 2))
            num_cut += int((tokens[1:, length:] != tokens[0, -1]).any(axis=1).sum())
        return num_cut

    def _loaded(self) -> "Callable[..., Tensor | np.ndarray]":
        if self._tokenize is None:
            try:
                import open_clip  # seconds

                self._tokenize = open_clip.get_tokenizer(self._name)
            except Exception as error:  # a missing package, a missing file, no network
                raise InputError(
                    f"cannot load the tokenizer of {self._name}: {first_line(error)}; SigLIP and other Hugging "
                    "Face tokenizers need `pip install transformers`, and network access on first use"
                ) from error
        return self._tokenize
