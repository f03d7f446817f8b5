"""Settings that are paths: one reading of them all, wherever they come from."""

from pathlib import Path
from typing import Any, get_args

from pipeline.source.access.naming import local_path

_NAMES_OR_PATHS = {"adapter", "control", "pretrained"}
"""Settings of text that can be a path: its `~` is expanded, and a URL is refused."""

_LOCAL_DIR = "local-dir:"


def is_path(annotation: Any) -> bool:
    """Whether a setting is declared as a path, optional or not."""
    return annotation is Path or Path in get_args(annotation)


def local_setting(name: str, annotation: Any, value: object) -> object:
    """The value of a setting, as a local path if it is one.

    Raises:
        ValueError: If it should be a local path and is a URL.
    """
    if not isinstance(value, str | Path) or not str(value):
        return value
    if is_path(annotation):
        return local_path(str(value))
    if name in _NAMES_OR_PATHS:
        return _name_or_path(str(value))
    if name == "policy":
        return ",".join(_name_or_path(part.strip()) for part in str(value).split(","))
    if name == "model" and str(value).startswith(_LOCAL_DIR):
        return f"{_LOCAL_DIR}{local_path(str(value).removeprefix(_LOCAL_DIR))}"
    return value


def _name_or_path(text: str) -> str:
    return str(local_path(text)) if text.startswith("~") or ":/" in text else text
