"""How flags, environment and YAML become one frozen settings model, and the settings that verbs share.

Precedence: flags, then environment (`CLIPSIEVE_<VERB>_<FIELD>`), then the YAML file of `--config`, then the defaults
of the classes. Unknown keys are errors in all three. Settings live next to what they configure: see also
`pipeline.settings.embed`, `pipeline.settings.adapt`, `indexer.settings` and `query.settings`.
"""

import os
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, SettingsConfigDict

from pipeline.durable.outputs import refuse_unwritable_file, refuse_unwritable_folder
from pipeline.errors import ConfigError
from pipeline.settings.flags import (
    WIDTH,
    FlagParser,
    UsageError,
    add_flags,
    refuse_old_flags,
    refuse_unknown_keys,
    usage_of,
)
from pipeline.settings.paths import local_setting
from pipeline.source.access.naming import local_path
from pipeline.source.secrets import scrubbed
from pipeline.yaml_file import kind_of, read_yaml

S = TypeVar("S", bound="Settings")
ENV_PREFIX = "CLIPSIEVE_"


class Settings(BaseModel):
    """Root of every verb's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"other": ("config",)}
    """The `--help` group of each field of this class; see `pipeline.settings.flags`."""

    OUTPUTS: ClassVar[dict[str, str]] = {}
    """The fields of this class that name a `file` or a `folder` to write. They are checked before the work."""

    config: Path | None = None
    """YAML file with any of these settings. Flags and environment variables override it."""

    def writes(self, name: str) -> bool:
        """Whether an output that has a path is written with these settings."""
        return True

    @field_validator("*", mode="before")
    @classmethod
    def _take_local_paths(cls, value: object, info: ValidationInfo) -> object:
        return local_setting(str(info.field_name), cls.model_fields[str(info.field_name)].annotation, value)


class OutputSettings(Settings):
    """How a verb outputs its results: shared by every verb that prints any."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"watching": ("as_json", "json_file")}
    OUTPUTS: ClassVar[dict[str, str]] = {"json_file": "file"}

    as_json: bool = Field(default=False, alias="json")
    """Print the results as JSON. Nothing else goes to standard output."""

    json_file: Path | None = None
    """Write the results to this JSON file as well."""

    @field_validator("as_json", mode="wrap")
    @classmethod
    def _refuse_a_path(cls, value: object, as_bool: ValidatorFunctionWrapHandler) -> bool:
        try:
            return as_bool(value)
        except ValidationError as error:
            raise ValueError("expected true or false; to write a file, use json_file or --json-file") from error


def load_settings(model: type[S], verb: str, argv: list[str], examples: str) -> S:
    """Build a verb's settings from flags, environment and YAML.

    Args:
        model: The verb's settings class; its docstring is the help text.
        verb: The verb as typed; also the prefix of its environment variables.
        argv: Arguments after the verb.
        examples: Shown at the end of `--help`.

    Raises:
        ConfigError: If a setting is invalid; names the key, the value and what was expected.
    """
    prefix = f"{ENV_PREFIX}{verb.upper().replace(' ', '_')}_"
    parser = FlagParser(
        prog=f"clipsieve {verb}",
        usage=usage_of(f"clipsieve {verb}", model),
        description=textwrap.fill(model.__doc__ or "", WIDTH),
        epilog=(
            f"examples:\n{examples}\n\nenvironment: {prefix}<SETTING>, for example {prefix}CONFIG\n"
            "Every switch has a --no- form, which overrides the environment and the file."
        ),
    )
    refuse_old_flags(parser.prog, argv, model)
    environment = _read_environment(model, prefix)
    values = {**_read_config(_config_path(argv, environment), model), **environment}
    try:
        source = fill_parser(parser, model, values)
        found = CliApp.run(source.settings_cls, cli_args=argv, cli_settings_source=source, **values)
        return model(**found.model_dump(by_alias=True))
    except UsageError:
        raise
    except ConfigError as error:  # from one of our validators, for example of a policy file
        raise ConfigError(f"clipsieve {verb}: {error}") from error
    except ValidationError as error:
        raise ConfigError(explain(error, f"clipsieve {verb}")) from error


def settings_of(model: type[S], where: str, values: dict[str, Any], only_typed: Collection[str] = ()) -> S:
    """Build a verb's settings from the arguments of its Python function. Environment and files do not count.

    Args:
        model: The verb's settings class.
        where: The function, for errors.
        values: The arguments by name.
        only_typed: Settings of this class that only the command line acts on.

    Raises:
        ConfigError: If a setting is unknown, invalid, or for the command line; names it, and what was expected.
    """
    for name in ("config", "json", "json_file", *only_typed):
        if name in values:
            raise ConfigError(f"{where}: {name} is for the command line; leave it out")
    refuse_unknown_keys(values, model, lambda key: f"{where}: unknown setting {key!r}")
    try:
        return model(**values)
    except ConfigError as error:  # from one of our validators, for example of a policy file
        raise ConfigError(f"{where}: {error}") from error
    except ValidationError as error:
        raise ConfigError(explain(error, where)) from error


def fill_parser(
    parser: FlagParser, model: type[Settings], given: Collection[str] = ()
) -> CliSettingsSource[BaseSettings]:
    """Add the flags of a settings class to a parser.

    Args:
        parser: An empty parser.
        model: The settings class.
        given: Settings that already have a value, and need no flag.

    Returns:
        The source that reads the parsed flags.
    """

    class Sources(BaseSettings, model):  # the same model, filled from the command line
        model_config = SettingsConfigDict(
            cli_prog_name=parser.prog,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_avoid_json=True,
            protected_namespaces=(),
        )

        @classmethod
        def settings_customise_sources(cls, settings_cls, init_settings, **_):  # noqa: ANN001, ANN003, ANN206
            return (init_settings,)  # file and environment: pydantic-settings applies no prefix to aliases

    flags: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {}

    def collect(_: object, *args: str, **options: Any) -> None:
        flags[options.get("dest", args[0])] = args, options

    source = CliSettingsSource(
        Sources, root_parser=parser, parse_args_method=FlagParser.parse_args, add_argument_method=collect
    )
    add_flags(parser, model, flags, given)
    return source


def refuse_unwritable_outputs(settings: Settings) -> None:
    """Check that everything a verb will write can be written.

    Raises:
        StoreError: If an output cannot be written.
        ConfigError: If two outputs have the same path.
    """
    outputs: dict[str, str] = {}
    for kind in type(settings).__mro__:
        outputs = {**vars(kind).get("OUTPUTS", {}), **outputs}
    flags: dict[Path, str] = {}
    for name in sorted(outputs):
        path, flag = getattr(settings, name), f"--{name.replace('_', '-')}"
        if path is None or not settings.writes(name):
            continue
        if path.absolute() in flags:
            raise ConfigError(f"{flags[path.absolute()]} and {flag} are both {path}; give each its own")
        flags[path.absolute()] = flag
        out = getattr(settings, "out", None)
        if outputs[name] == "folder":
            refuse_unwritable_folder(path, flag)
        elif out and path.absolute().parent == out.absolute() and not out.exists():  # the run will make the folder
            refuse_unwritable_folder(out, "--out")
        else:
            refuse_unwritable_file(path, flag)


def explain(error: ValidationError, where: str, advice: str | None = None) -> str:
    """One line for a validation error: the field, the value found, what was expected.

    Args:
        error: The error.
        where: What was validated.
        advice: What to do about a missing field. By default, to give its flag.
    """
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        text = f"{field} is missing; {advice or _flag_advice(field)}"
    elif not field:
        text = message
    else:
        text = f"{field} = {scrubbed(repr(first['input']))}: {message[0].lower()}{message[1:]}"
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return f"{where}: {text}{more}"


def _flag_advice(field: str) -> str:
    return f"give --{field.replace('_', '-')} or see --help"


def _config_path(argv: list[str], environment: dict[str, str]) -> Path | None:
    finder = FlagParser()
    finder.add_argument("--config")
    found = finder.parse_known_args(argv)[0].config or environment.get("config")
    try:
        return local_path(found) if found else None
    except ValueError as error:
        raise ConfigError(f"config = {found!r}: {error}") from error


def _read_config(path: Path | None, model: type[Settings]) -> dict[str, Any]:
    values = read_yaml(path, "--config", "a YAML file of settings") if path else None
    if values is None:  # no file, or an empty one
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, found {kind_of(values)}")
    refuse_unknown_keys(values, model, lambda key: f"{path}: unknown key {key!r}")
    if "config" in values:
        raise ConfigError(f"{path}: a config file cannot name another one with `config`; use a single file")
    named = {key.replace("-", "_"): value for key, value in values.items()}
    if len(named) < len(values):
        twice = next(key for key in values if "-" in key and key.replace("-", "_") in values)
        raise ConfigError(f"{path}: key {twice!r} is given twice, with - and with _; keep one")
    return named


def _read_environment(model: type[Settings], prefix: str) -> dict[str, str]:
    found = {name.removeprefix(prefix).lower(): text for name, text in os.environ.items() if name.startswith(prefix)}
    refuse_unknown_keys(found, model, lambda key: f"unknown environment variable {prefix}{key.upper()}")
    return {name: text for name, text in found.items() if text}
