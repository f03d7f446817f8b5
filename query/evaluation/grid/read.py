"""Reads a grid file. Every error names the file, the line and the key."""

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.errors import ConfigError
from pipeline.source.secrets import scrubbed
from pipeline.yaml_file import Loc, YamlLines, kind_of, read_yaml_lines
from query.evaluation.grid.earlier import EarlierPlan
from query.evaluation.grid.keys import GridKeys, Keys

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid file: its keys with their defaults, and where in the file each of them is."""

    keys: GridKeys
    path: Path
    lines: YamlLines
    spellings: dict[str, str] = field(default_factory=dict)
    """Texts with `$NAME` in them, as the file spells them, by their values."""

    def line_of(self, loc: Loc) -> int:
        """The line of a key, such as `("series", 0, "policies", 1)`; that of the part around it if it is not given."""
        return self.lines.resolve(loc)[0]

    def error(self, loc: Loc, problem: str, found: object = None) -> ConfigError:
        """An error about a key.

        Args:
            loc: Where the key is.
            problem: What was expected, and what to do.
            found: The value, if it is short enough to show.
        """
        return _error(self.path, self.lines, loc, problem, found)

    def as_spelled(self, text: str | None) -> str | None:
        """A text as the file spells it: with `$NAME`, so that it is the same on every machine."""
        return None if text is None else self.spellings.get(text, text)

    def as_json(self) -> dict[str, Any]:
        """The whole grid with its defaults, as plain values, with `$NAME` as the file spells it."""
        return _mapped(self.keys.model_dump(mode="json"), self.spellings)


def read_grid(path: Path) -> Grid:
    """Read a grid file. `$NAME` and `${NAME}` in values stand for environment variables, `$$` for a dollar sign.

    Raises:
        ConfigError: If the grid is invalid; names the file, the line and the key. `EarlierPlan`, if it is a plan file
            of an earlier version.
    """
    values, lines = read_yaml_lines(path, "grid", "a YAML file of a sweep; `clipsieve sweep --keys` shows its keys")
    if isinstance(values, list) and values and all(isinstance(value, dict) for value in values):
        raise EarlierPlan(path)
    if not isinstance(values, dict):
        raise ConfigError(
            f"grid {path} must hold `key: value` lines, found {kind_of(values)}; `clipsieve sweep --keys` shows them"
        )
    reader = _Reader(path, lines)
    try:
        keys = GridKeys(**{str(key): reader.filled(value, (key,)) for key, value in values.items()})
    except ValidationError as error:
        raise _explained(error, path, lines) from error
    except RecursionError as error:
        raise ConfigError(f"grid {path}: a value contains itself; write it out") from error
    grid = Grid(keys, path, lines, reader.spellings)
    for number in range(len(keys.data)):
        _check_data(grid, number)
    return grid


class _Reader:
    """Fills in environment variables, and remembers what stood there."""

    def __init__(self, path: Path, lines: YamlLines) -> None:
        self._path, self._lines = path, lines
        self.spellings: dict[str, str] = {}

    def filled(self, value: Any, loc: Loc) -> Any:
        if isinstance(value, dict):
            return {key: self.filled(part, (*loc, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self.filled(part, (*loc, place)) for place, part in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value

        def variable(found: re.Match[str]) -> str:
            name = found.group(2) or found.group(3)
            if found.group(1):
                return "$"
            if not os.environ.get(name):
                raise _error(self._path, self._lines, loc, f"${name} is not set; set it, or write its value here")
            return os.environ[name]

        text = _VARIABLE.sub(variable, value)
        self.spellings[text] = value
        return text


def _mapped(value: Any, spellings: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(part, spellings) for key, part in value.items()}
    if isinstance(value, list):
        return [_mapped(part, spellings) for part in value]
    return spellings.get(value, value) if isinstance(value, str) else value


def _check_data(grid: Grid, number: int) -> None:
    """Refuse a name that is taken: files are named after it, on any file system."""
    names = [other.name.lower() for other in grid.keys.data]
    first = names.index(names[number])
    if first < number:
        line = grid.line_of(("data", first, "name"))
        problem = f"line {line} has a data set of this name; rename one"
        raise grid.error(("data", number, "name"), problem, grid.keys.data[number].name)


def _error(path: Path, lines: YamlLines, loc: Loc, problem: str, found: object = None) -> ConfigError:
    line, shown = lines.resolve(loc)
    key = ".".join(str(part) for part in shown)
    value = "" if found is None else f" = {scrubbed(repr(found))}"
    return ConfigError(f"{path}, line {line}: {key}{value}: {problem}")


def _explained(error: ValidationError, path: Path, lines: YamlLines) -> ConfigError:
    first, *others = error.errors()
    loc = first["loc"]
    # a list of wrong items is reported as too short as well
    others = [one for one in others if not (one["type"] == "too_short" and loc[: len(one["loc"])] == one["loc"])]
    message = first["msg"].removeprefix("Value error, ")
    found = first["input"] if not isinstance(first["input"], dict | list | tuple | Keys) else None
    if first["type"] == "missing":
        message, found = f"it is missing; add it here: {_help_of(loc)}", None
    elif first["type"] == "extra_forbidden":
        message, found = _on_unknown_key(loc), None
    elif first["type"] == "model_type":
        message, found = f"expected `key: value` lines, found {kind_of(first['input'])}", None
    more = sorted({lines.resolve(other["loc"])[0] for other in others})
    if more:
        message += f" (and {len(others)} more, on line{'s' * (len(more) > 1)} {', '.join(map(str, more))})"
    return _error(path, lines, loc, f"{message[0].lower()}{message[1:]}", found)


def _on_unknown_key(loc: Loc) -> str:
    known = list(_model_at(loc[:-1]).model_fields)
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"unknown key{f'; did you mean {near[0]}?' if near else ''}; known: {', '.join(known)}"


def _help_of(loc: Loc) -> str:
    return " ".join((_model_at(loc[:-1]).model_fields[str(loc[-1])].description or "").split())


def _model_at(loc: Loc) -> type[BaseModel]:
    """The class of the keys at a place."""
    model: type[BaseModel] = GridKeys
    for part in loc:
        if part in model.model_fields:
            model = keys_within(model.model_fields[str(part)].annotation) or model
    return model


def keys_within(annotation: Any) -> type[Keys] | None:
    """The class of keys that a key holds, alone or as items; None if it holds plain values."""
    if isinstance(annotation, type) and issubclass(annotation, Keys):
        return annotation
    return next((found for inner in get_args(annotation) if (found := keys_within(inner))), None)
