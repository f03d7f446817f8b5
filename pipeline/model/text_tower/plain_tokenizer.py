"""open_clip's own tokenizer, without the rest of open_clip and without torch.

Its file needs torch only to return tensors. Here the file runs as a module of its own, for which `import torch` gives
two names for its annotations. The installed package is not touched: a process can import it before or afterwards.
"""

import builtins
import importlib.util
import threading
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from pipeline.model.tokenizer import Tokenizer

_IN_PLACE_OF_TORCH = SimpleNamespace(Tensor=object, LongTensor=object)
_loading = threading.Lock()


class PlainTokenizer(Tokenizer):
    """open_clip's SimpleTokenizer with its default options."""

    def __init__(self, context_length: int) -> None:
        """Load the tokenizer.

        Raises:
            Exception: Of any type, if the installed open_clip has another file than is expected.
        """
        super().__init__("SimpleTokenizer")
        with _loading:
            self._tokenize = _Ids(_module()._tokenizer, context_length)


class _Ids:
    """Calls of open_clip's tokenizer, with arrays in place of tensors."""

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._tokenizer, self.context_length = tokenizer, context_length

    def __call__(self, texts: list[str], context_length: int | None = None) -> np.ndarray:
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        length = context_length or self.context_length
        ids = np.zeros((len(texts), length), np.int64)
        for row, text in zip(ids, texts, strict=True):
            tokens = [start, *self._tokenizer.encode(text), end]
            if len(tokens) > length:
                tokens = [*tokens[: length - 1], end]
            row[: len(tokens)] = tokens
        return ids


@cache
def _module() -> ModuleType:
    [folder] = importlib.util.find_spec("open_clip").submodule_search_locations
    path = Path(folder) / "tokenizer.py"
    module = ModuleType("open_clip_tokenizer_alone")
    module.__file__ = str(path)
    module.__builtins__ = {**vars(builtins), "__import__": _import}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), vars(module))
    return module


def _import(name: str, *args: Any, **kwargs: Any) -> Any:
    return _IN_PLACE_OF_TORCH if name == "torch" else builtins.__import__(name, *args, **kwargs)
