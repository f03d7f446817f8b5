"""How a settings class looks on the command line: flags in groups, short metavars, choices, defaults, and old names."""

import argparse
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import CliPositionalArg

from pipeline.errors import ConfigError

GROUPS = ("what", "how good", "how fast", "safety", "watching", "other")
"""Titles in the order of `--help`; each settings class says in its `GROUPS` which of its fields belong where."""

WIDTH = 100
"""Columns of `--help`."""

RENAMED = {"dtype": "precision", "plan": "grid"}
"""Settings that had another name, for errors that name the new one."""

_POSITIONAL = CliPositionalArg[str].__metadata__[0]
_METAVARS = {Path: "PATH", int: "N", float: "X", str: "NAME"}
_METAVARS_OF_FIELDS = {
    "adapter": "PATH",
    "columns": "LIST",
    "control": "PATH",
    "costs": "LIST",
    "key_prefix": "TEXT",
    "pretrained": "TAG",
    "ray_address": "ADDRESS",
    "targets": "LIST",
    "wandb": "PROJECT",
}


class FlagParser(argparse.ArgumentParser):
    """Raises our error for a wrong command line, and leaves the values to pydantic, wherever they come from."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, "allow_abbrev": False, "add_help": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Raise the error as one line."""
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Accept any value: choices are for help and completion."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return ", ".join(flag for flag in action.option_strings if not flag.startswith("--no-"))
        return super()._format_action_invocation(action)

    def _split_lines(self, text: str, width: int) -> list[str]:
        text = text.replace("[default: ", "[default:\0")  # nothing breaks here
        return [line.replace("\0", " ") for line in textwrap.wrap(text, width, break_on_hyphens=False)]


def grouped_fields(model: type[BaseModel]) -> dict[str, list[str]]:
    """The fields of a settings class by the title of their group; the most derived class that names one decides."""
    places: dict[str, str] = {}
    for kind in model.__mro__:
        for title, names in vars(kind).get("GROUPS", {}).items():
            for name in names:
                places.setdefault(name, title)
    return {title: [name for name, place in places.items() if place == title] for title in GROUPS}


def add_flags(
    parser: argparse.ArgumentParser,
    model: type[BaseModel],
    flags: Mapping[str, tuple[Sequence[str], dict[str, Any]]],
    given: Collection[str] = (),
) -> None:
    """Fill a parser with the flags of a settings class, group by group.

    Args:
        parser: An empty parser.
        model: The settings class.
        flags: Arguments of `add_argument` by setting, as pydantic-settings makes them.
        given: Settings that the file or the environment gives: positional ones may be left out then.
    """
    for title, names in grouped_fields(model).items():
        group = parser.add_argument_group(title)
        for name in names:
            field = model.model_fields[name]
            args, options = flags[key_of(name, field)]
            options = {**options, "help": _help_text(field)}
            if options.get("action") is not argparse.BooleanOptionalAction:
                choices = choices_of(field.annotation)
                options |= {"choices": choices or None, "metavar": _metavar(name, field, choices)}
            if not args[0].startswith("-") and name in given:
                options["nargs"] = "?"
            group.add_argument(*args, **options)
        if title == "other":
            group.add_argument("-h", "--help", action="help", help="Show this help and exit.")


def key_of(name: str, field: FieldInfo) -> str:
    """What a setting is called outside: its alias, where it has one."""
    aliases = getattr(field.validation_alias, "choices", None)
    return str(aliases[0]) if aliases else field.alias or name


def usage_of(prog: str, model: type[BaseModel]) -> str:
    """One line: what must be given, and that there are options."""
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    positional = [name.upper() for name in required if is_positional(model.model_fields[name])]
    options = [name for name in required if not is_positional(model.model_fields[name])]
    asked = [f"--{name.replace('_', '-')} {_metavar(name, model.model_fields[name], ())}" for name in options]
    return " ".join([prog, *positional, *asked, "[options]"])


def is_positional(field: FieldInfo) -> bool:
    """Whether a setting is given by its place, not by a flag."""
    return _POSITIONAL in field.metadata


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values of a Literal, optional or not; none of another type."""
    annotation = _without_none(annotation)
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def refuse_old_flags(prog: str, argv: Sequence[str], model: type[BaseModel]) -> None:
    """Name the new flag to who uses an old one; before argparse, which would take the value for something else.

    Raises:
        ConfigError: Naming both.
    """
    for token, following in zip(argv, [*argv[1:], ""], strict=False):
        if token == "--":
            return
        flag, _, value = token.partition("=")
        new = RENAMED.get(flag.removeprefix("--")) if flag.startswith("--") else None
        if new in model.model_fields and not is_positional(model.model_fields[new]):
            raise ConfigError(f"{prog}: {flag} is called --{new} now; give --{new} {value or following}")
        path = value or (following if following.endswith(".json") and not following.startswith("-") else "")
        if flag == "--json" and path and "json_file" in model.model_fields:
            raise ConfigError(f"{prog}: --json is a switch now; give --json-file {path} to write the results to a file")


def refuse_unknown_keys(keys: Iterable[str], model: type[BaseModel], describe: Any) -> None:
    """Refuse keys of a file, or of the environment, that are no settings.

    Raises:
        ConfigError: Naming the key, and the new one where it was renamed.
    """
    known = sorted(field.alias or name for name, field in model.model_fields.items())
    for key in keys:
        name = str(key).replace("-", "_")
        if RENAMED.get(name) in known:
            raise ConfigError(f"{describe(key)}; it is called {RENAMED[name]} now")
        if name not in known:
            raise ConfigError(f"{describe(key)}; known: {', '.join(known)}")


def _help_text(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("%", "%%")
    has_default = not (field.is_required() or field.default is None or field.default == "")
    if not has_default or field.annotation is bool:
        return text
    return (
        f"{text} [default: {field.default:g}]"
        if isinstance(field.default, float)
        else f"{text} [default: {field.default}]"
    )


def _metavar(name: str, field: FieldInfo, choices: Sequence[str]) -> str:
    if is_positional(field):
        return name.upper()
    if choices:
        return f"{{{','.join(choices)}}}"
    return _METAVARS_OF_FIELDS.get(name) or _METAVARS[_without_none(field.annotation)]


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        return next(kind for kind in get_args(annotation) if kind is not NoneType)
    return annotation
