"""YAML files that people write: settings, policies, grids. Home of `yaml`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_MERGE = "tag:yaml.org,2002:merge"


Loc = tuple[str | int, ...]
"""Where a value is in a YAML file: keys and, from 0, places in lists."""


@dataclass(frozen=True, slots=True)
class YamlLines:
    """Which line of a YAML file each value is on."""

    root: yaml.Node | None
    """None if there is no file, or nothing in it."""

    def resolve(self, loc: Loc) -> tuple[int, Loc]:
        """The line (from 1) of the value at `loc`, or of what it would be in, and the location as the file spells it.

        Parts of `loc` that the file does not have are left out, except the last, which may be a missing key: pydantic
        puts the kind of a value between two keys.
        """
        node, line, found = self.root, self.root.start_mark.line + 1 if self.root else 1, []
        for place, part in enumerate(loc):
            inner = _child(node, part)
            if inner:
                node, line = inner
                found.append(part)
            elif place == len(loc) - 1:
                found.append(part)
        return line, tuple(found)

    def within(self, part: str) -> "YamlLines":
        """The lines of the value of a key; of nothing if the file does not have it."""
        inner = _child(self.root, part)
        return YamlLines(inner[0] if inner else None)

    def has(self, loc: Loc) -> bool:
        """Whether the file has a value at `loc`."""
        node = self.root
        for part in loc:
            inner = _child(node, part)
            if inner is None:
                return False
            node = inner[0]
        return True


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, int] | None:
    """The value of a key or a place, and its line: that of the key."""
    if isinstance(node, yaml.MappingNode):
        # the last one counts: merged keys come first
        pairs = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode) and key.value == part]
        return (pairs[-1][1], pairs[-1][0].start_mark.line + 1) if pairs else None
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None


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
    return read_yaml_lines(path, what, expected)[0]


def read_yaml_lines(path: "Path | Traversable", what: str, expected: str) -> tuple[Any, YamlLines]:
    """As `read_yaml`, with the lines of the values."""
    try:
        with path.open("rb") as file:  # yaml finds the encoding: UTF-8, or UTF-16 with a mark
            loader = _UniqueKeyLoader(file)
            try:
                node = loader.get_single_node()
                return None if node is None else loader.construct_document(node), YamlLines(node)
            finally:
                loader.dispose()
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
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                line = key.start_mark.line + 1
                if key.value in lines:
                    place = f" of lines {lines[key.value]} and {line}" if lines[key.value] != line else ""
                    raise ConfigError(f"{node.start_mark.name}: key {key.value!r} is given twice; keep one{place}")
                lines[key.value] = line
        return node
