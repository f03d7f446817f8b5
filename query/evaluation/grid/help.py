"""The keys of a grid as text, for `clipsieve sweep --keys`."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.settings.flags import WIDTH
from query.evaluation.grid.keys import GridKeys, Keys
from query.evaluation.grid.read import keys_within

_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", dict: "keys"}
_HEAD = (
    "A grid is a YAML file with these keys. `$NAME` in a value stands for an environment variable, and paths are "
    "relative to the current folder."
)


def describe_keys() -> str:
    """The whole tree of keys, each with its type, its default and its help."""
    return "\n".join([*textwrap.wrap(_HEAD, WIDTH), "", *_lines(GridKeys, 0)])


def _lines(model: type[Keys], depth: int) -> Iterator[str]:
    for name, field in model.model_fields.items():
        indent = "  " * depth
        yield f"{indent}{name}: {_kind(field.annotation)}{_default(field)}"
        help_text = " ".join((field.description or "").split())
        yield from textwrap.wrap(
            help_text, WIDTH, initial_indent=f"{indent}    ", subsequent_indent=f"{indent}    ", break_on_hyphens=False
        )
        if inner := keys_within(field.annotation):
            yield from _lines(inner, depth + 1)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ", required"
    default = field.default
    if default in (None, (), PydanticUndefined) or isinstance(default, Keys):
        return ""
    if isinstance(default, tuple):
        default = f"[{', '.join(map(str, default))}]"
    return f", default {str(default).lower() if isinstance(default, bool) else default}"


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(_kind(kind) for kind in inner if kind is not NoneType)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin is tuple and inner[-1] is Ellipsis:
        return f"list of {_kind(inner[0])}"
    if origin is tuple:
        return f"pair of {_kind(inner[0])}"
    if origin is dict:
        return "keys" if inner[1] is Any else f"keys by name, each {_kind(inner[1])}"
    return "keys" if keys_within(annotation) else _KINDS[annotation]
