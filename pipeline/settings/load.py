"""The typed settings tree: how flags, environment and YAML become one frozen model; what several verbs share.

Precedence: flags, then environment (`CLIPSIEVE_<VERB>_<FIELD>`), then the YAML file of `--config`, then the defaults
written here. Unknown keys are errors in all three. A part's settings live with the part: see also
`pipeline.settings.embed`, `pipeline.settings.adapt`, `indexer.settings` and `query.settings`.
"""

import argparse
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, SettingsConfigDict

from pipeline.errors import ConfigError

S = TypeVar("S", bound="Settings")
ENV_PREFIX = "CLIPSIEVE_"


class Settings(BaseModel):
    """Root of every verb's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    config: Path | None = None
    """YAML file with any of these settings; flags and environment win over it."""


def load_settings(model: type[S], verb: str, argv: list[str], examples: str) -> S:
    """Build a verb's settings from flags, environment and YAML.

    Args:
        model: The verb's settings class; its docstring is the help text.
        verb: As typed; also names the environment variables.
        argv: Arguments after the verb.
        examples: Shown at the end of `--help`.

    Raises:
        ConfigError: Naming the key, the value and what was expected.
    """
    prefix = f"{ENV_PREFIX}{verb.upper().replace('-', '_')}_"
    parser = _Parser(
        prog=f"clipsieve {verb}",
        description=(model.__doc__ or "").strip(),
        epilog=f"examples:\n{examples}\n\nenvironment: {prefix}<SETTING>, as in {prefix}CONFIG",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    class Sources(BaseSettings, model):  # the same tree, read from outside
        model_config = SettingsConfigDict(
            env_prefix=prefix,
            cli_prog_name=parser.prog,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_hide_none_type=True,
            cli_avoid_json=True,
            env_ignore_empty=True,
            protected_namespaces=(),
        )

        @classmethod
        def settings_customise_sources(cls, settings_cls, init_settings, env_settings, **_):  # noqa: ANN001, ANN003, ANN206
            return env_settings, init_settings

    _refuse_unknown_environment(model, prefix)
    yaml_values = _read_yaml(_config_path(argv, prefix), model)
    try:
        source = CliSettingsSource(Sources, root_parser=parser)
        _make_optional(parser, {*yaml_values, *_environment_keys(prefix)})
        values = CliApp.run(Sources, cli_args=argv, cli_settings_source=source, **yaml_values).model_dump(by_alias=True)
        return model(**values)
    except ConfigError as error:  # a validator of ours that met a policy file, say
        raise ConfigError(f"clipsieve {verb}: {error}") from error
    except ValidationError as error:
        raise ConfigError(explain(error, f"clipsieve {verb}")) from error


def explain(error: ValidationError, where: str) -> str:
    """One line for a validation error: the field, the value found, what was expected."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        text = f"{field} is missing; give --{field.replace('_', '-')} or see --help"
    elif not field:
        text = message
    else:
        text = f"{field} = {first['input']!r}: {message[0].lower()}{message[1:]}"
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return f"{where}: {text}{more}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Plain YAML would let the last of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        repeated = next((key for key in keys if keys.count(key) > 1), None)
        if repeated is not None:
            raise ConfigError(f"{node.start_mark.name}: key {repeated!r} is given twice; keep one")
        return super().construct_mapping(node, deep)


def _config_path(argv: list[str], prefix: str) -> Path | None:
    finder = _Parser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    found = finder.parse_known_args(argv)[0].config or os.environ.get(f"{prefix}CONFIG")
    return Path(found) if found else None


def _read_yaml(path: Path | None, model: type[Settings]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            values = yaml.load(file, Loader=_UniqueKeyLoader) or {}
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}; give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise ConfigError(f"{path} is not YAML: {reason}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, found a {type(values).__name__}")
    _refuse_unknown(values, model, lambda key: f"{path}: unknown key {key!r}")
    if "config" in values:
        raise ConfigError(f"{path}: a file cannot name another one with `config`; put all settings into one")
    named = {key.replace("-", "_"): value for key, value in values.items()}
    if len(named) < len(values):
        twice = next(key for key in values if "-" in key and key.replace("-", "_") in values)
        raise ConfigError(f"{path}: key {twice!r} is given twice, with - and with _; keep one")
    return named


def _make_optional(parser: argparse.ArgumentParser, given: set[str]) -> None:
    # argparse demands positional arguments even where the file or the environment gives them
    for action in parser._actions:
        if not action.option_strings and action.dest in given:
            action.nargs, action.required = "?", False


def _environment_keys(prefix: str) -> list[str]:
    return [name.removeprefix(prefix).lower() for name in os.environ if name.startswith(prefix)]


def _refuse_unknown_environment(model: type[Settings], prefix: str) -> None:
    _refuse_unknown(_environment_keys(prefix), model, lambda key: f"unknown environment variable {prefix}{key.upper()}")


def _refuse_unknown(keys: Any, model: type[Settings], describe: Any) -> None:
    known = sorted(field.alias or name for name, field in model.model_fields.items())
    for key in keys:
        if str(key).replace("-", "_") not in known:
            raise ConfigError(f"{describe(key)}; known: {', '.join(known)}")
