"""Rounded weights that several encoders of the same weights share. Nothing is kept that no encoder holds."""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from pipeline.model.quantization.products import Range

_Made = TypeVar("_Made")
_made: weakref.WeakValueDictionary[tuple[object, ...], Any] = weakref.WeakValueDictionary()


def shared(
    what: tuple[object, ...], weights: tuple[Tensor, ...], ranges: tuple[Range, ...], make: Callable[[], _Made]
) -> _Made:
    """What was made earlier of these very tensors and ranges, if it is still in use; else what `make` makes.

    Args:
        what: Names the thing made, and anything else that it depends on.
        weights: The tensors that it is made of. A change in place makes others of them.
        ranges: The ranges that it is made with.
        make: Makes it.
    """
    key = (*what, *((id(weight), weight._version) for weight in weights), *map(id, ranges))
    found = _made.get(key)
    if found is None:
        found = _made[key] = make()
        # the ids in the key stay theirs for as long as the thing made lives
        weakref.finalize(found, _let_go, weights, ranges).atexit = False
    return found


def _let_go(*held: object) -> None:
    pass
