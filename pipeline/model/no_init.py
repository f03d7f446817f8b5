"""Create modules without their random initial values, where weights are loaded next."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class NoInit(TorchFunctionMode):
    """Within this context and thread the functions of `torch.nn.init` do nothing.

    Random values take most of the time that open_clip needs to create a model. Every one of them must then be
    replaced: load the weights with `strict=True`, as open_clip does.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) != "torch.nn.init":
            return func(*args, **kwargs)
        tensor: Tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
        return tensor
