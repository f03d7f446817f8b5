"""YAML files that people write: settings, policies, grids. Home of `yaml`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: "Path | Traversable", what: str, expected: str) -> Any:
    """Read a YAML file. A key given twice is refused; `<<` merges keys, which the mapping's own keys override.

    Args:
        path: The file.
        what: What it is, for messages; for example `policy`.
        expected: What to give instead of a file that cannot be read or used.

    Returns:
        Its value; None if the file is empty.

    Raises:
        ConfigError: If the file cannot be read, or is not valid YAML.
    """
    try:
        with path.open("rb") as file:  # yaml finds the encoding: UTF-8, or UTF-16 with a mark
            return yaml.load(file, Loader=_UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}; give {expected}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise ConfigError(f"{what} {path} is not valid YAML: {reason}; give {expected}") from error


def kind_of(value: Any) -> str:
    """What a YAML value is, in plain words."""
    names = {dict: "`key: value` lines", list: "a list", str: "text", bool: "true or false"}
    return "nothing" if value is None else names.get(type(value), "a single value")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses duplicate keys. Plain YAML would silently keep the last one."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        # here, and not when the mapping is built: merged keys are then among its own
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ConfigError(f"{node.start_mark.name}: key {repeated!r} is given twice; keep one")
        return node
