"""How a settings class looks on the command line: grouped flags, metavars, choices, defaults and renamed flags."""

import argparse
import json
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import CliPositionalArg

from pipeline.errors import ConfigError
from pipeline.source.secrets import scrubbed

GROUPS = ("what", "how good", "how fast", "safety", "watching", "other")
"""Group titles in the order of `--help`. Each settings class assigns its fields to them in its own `GROUPS`."""

WIDTH = 100
"""Width of `--help` in columns."""

RENAMED = {"dtype": "precision", "plan": "grid"}
"""New names of renamed settings, for the error messages that point to them."""

_SHOWN = 3
_POSITIONAL = CliPositionalArg[str].__metadata__[0]
_METAVARS = {Path: "PATH", int: "N", float: "X", str: "NAME", SecretStr: "TOKEN"}
_METAVARS_OF_FIELDS = {
    "adapter": "PATH",
    "allow_origin": "ORIGIN",
    "columns": "LIST",
    "control": "PATH",
    "costs": "LIST",
    "exclude": "PATTERN",
    "key_prefix": "TEXT",
    "max_build_memory": "SIZE",
    "max_index_memory": "SIZE",
    "only": "LIST",
    "pretrained": "TAG",
    "host_name": "NAME",
    "image": "FILE",
    "like": "ID",
    "queries": "FILE",
    "ray_address": "ADDRESS",
    "recipe": "STRING",
    "retry": "LIST",
    "root_path": "PREFIX",
    "targets": "LIST",
    "template": "TEXT",
    "trusted_proxies": "LIST",
    "wandb": "PROJECT",
    "where": "CONDITION",
}


class UsageError(ConfigError):
    """A wrong command line. Its message already names the verb."""


class FlagParser(argparse.ArgumentParser):
    """Raises our own error for a bad command line. Leaves all values to pydantic, wherever they come from."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, "allow_abbrev": False, "add_help": False, **kwargs})

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:
        """Parse a whole command line."""
        # "intermixed" lets a positional that may be missing follow the flags
        found, surplus = self.parse_known_intermixed_args(args, namespace)
        if surplus:
            shown = " ".join(surplus[:_SHOWN]) + (" ..." if len(surplus) > _SHOWN else "")
            self.error(f"unrecognized arguments: {shown}{self._advice_on(surplus)}")
        return found

    def _advice_on(self, surplus: Sequence[str]) -> str:
        positional = {action.dest for action in self._actions if not action.option_strings}
        if any(word.startswith("-") for word in surplus):
            return ""
        if "source" in positional and all(Path(word).exists() for word in surplus):
            pattern = Path(surplus[0]).with_name(f"*{Path(surplus[0]).suffix}")
            return f" (the shell has expanded a pattern; quote the pattern, as in '{pattern}')"
        return ""

    def error(self, message: str) -> NoReturn:
        """Raise the message as an error of one line."""
        raise UsageError(f"{self.prog}: {scrubbed(message)}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Accept any value: choices are only for help and completion."""


class _Repeatable(argparse.Action):
    """Collects the values of a flag that may be given several times, as JSON: pydantic would split text at commas."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        collected = json.loads(getattr(namespace, self.dest, None) or "[]")
        setattr(namespace, self.dest, json.dumps([*collected, values]))


class _Words(argparse.Action):
    """Collects the words of a positional that takes several, as JSON, for the same reason."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        if isinstance(values, list):  # without any word, it is the default
            setattr(namespace, self.dest, json.dumps(values))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return ", ".join(flag for flag in action.option_strings if not flag.startswith("--no-"))
        return super()._format_action_invocation(action)

    def _split_lines(self, text: str, width: int) -> list[str]:
        text = text.replace("[default: ", "[default:\0")  # do not break the line here
        return [line.replace("\0", " ") for line in textwrap.wrap(text, width, break_on_hyphens=False)]


def grouped_fields(model: type[BaseModel]) -> dict[str, list[str]]:
    """The fields of a settings class by group title. The most derived class that lists a field decides."""
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
    """Add the flags of a settings class to a parser, group by group.

    Args:
        parser: An empty parser.
        model: The settings class.
        flags: Arguments of `add_argument` for each setting, as pydantic-settings makes them.
        given: Settings given by the file or the environment; positional ones may then be left out.
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
            if get_origin(field.annotation) is tuple:
                options |= {"action": _Words, "nargs": "*"} if is_positional(field) else {"action": _Repeatable}
            elif is_positional(field) and name in given:
                options["nargs"] = "?"
            group.add_argument(*args, **options)
        if title == "other":
            group.add_argument("-h", "--help", action="help", help="Show this help and exit.")


def key_of(name: str, field: FieldInfo) -> str:
    """The public name of a setting: its alias if it has one."""
    aliases = getattr(field.validation_alias, "choices", None)
    return str(aliases[0]) if aliases else field.alias or name


def flag_names(model: type[BaseModel]) -> set[str]:
    """The flags of a settings class in every spelling, without the `--no-` forms of switches."""
    names = {"help"}
    for name, field in model.model_fields.items():
        if not is_positional(field):
            names |= {str(key) for key in getattr(field.validation_alias, "choices", ())} or {key_of(name, field)}
    return {f"{'--' if len(name) > 1 else '-'}{name.replace('_', '-')}" for name in names}


def usage_of(prog: str, model: type[BaseModel]) -> str:
    """The usage line: the required arguments, then `[options]`."""
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    positional = [name.upper() for name in required if is_positional(model.model_fields[name])]
    options = [name for name in required if not is_positional(model.model_fields[name])]
    asked = [f"--{name.replace('_', '-')} {_metavar(name, model.model_fields[name], ())}" for name in options]
    return " ".join([prog, *positional, *asked, "[options]"])


def is_positional(field: FieldInfo) -> bool:
    """Whether a setting is a positional argument, not a flag."""
    return _POSITIONAL in field.metadata


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values of a Literal, optional or not; empty for any other type."""
    annotation = _without_none(annotation)
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def refuse_old_flags(prog: str, argv: Sequence[str], model: type[BaseModel]) -> None:
    """Refuse renamed flags. Runs before argparse, which would misread their values.

    Raises:
        ConfigError: If an old flag is used; names the old and the new one.
    """
    for token, following in zip(argv, [*argv[1:], ""], strict=False):
        if token == "--":
            return
        flag, _, value = token.partition("=")
        new = RENAMED.get(flag.removeprefix("--")) if flag.startswith("--") else None
        if new in model.model_fields and not is_positional(model.model_fields[new]):
            raise ConfigError(f"{prog}: {flag} was renamed; use --{new} {value or following}")
        path = value or (following if following.endswith(".json") and not following.startswith("-") else "")
        if flag == "--json" and path and "json_file" in model.model_fields:
            raise ConfigError(f"{prog}: --json takes no value; use --json-file {path} to write the results to a file")


def refuse_unknown_keys(keys: Iterable[str], model: type[BaseModel], describe: Any) -> None:
    """Refuse keys of a file or of the environment that are not settings.

    Raises:
        ConfigError: If a key is unknown; names it, and its new name if it was renamed.
    """
    known = sorted(field.alias or name for name, field in model.model_fields.items())
    for key in keys:
        name = str(key).replace("-", "_")
        if RENAMED.get(name) in known:
            raise ConfigError(f"{describe(key)}; it was renamed to {RENAMED[name]}")
        if name not in known:
            raise ConfigError(f"{describe(key)}; known: {', '.join(known)}")


def _help_text(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("%", "%%")
    has_default = not (field.is_required() or field.default in (None, "", ()))
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
