"""What the steps of a run share: where files go, what they were made of, and how much was kept."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.durable.atomic import write_json
from pipeline.monitor.progress import Tick
from query.evaluation.raw.folder import SweepFolder

OnTick = Callable[[str, Tick], None]
MADE_OF = "made_of.json"
"""Beside files that cannot say it themselves: what each was made of."""


@dataclass(slots=True)
class Tally:
    """How much earlier runs left, and how much this one measured, by kind."""

    kept: Counter[str] = field(default_factory=Counter)
    measured: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """One line."""
        kinds = dict.fromkeys([*self.kept, *self.measured])
        parts = [f"{self.measured[kind]} {kind} measured, {self.kept[kind]} kept" for kind in kinds]
        if not self.measured.total():
            parts = [f"{self.kept[kind]} {kind}" for kind in kinds]
            return f"nothing was measured; kept from earlier runs: {', '.join(parts)}"
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Work:
    """One run into a folder."""

    folder: SweepFolder
    environment_key: str
    on_tick: OnTick
    tally: Tally = field(default_factory=Tally)


def is_made_of(folder: Path, name: str, inputs: Mapping[str, object]) -> bool:
    """Whether a file of a folder, or the folder's files of one kind, were made of these inputs."""
    return _read(folder).get(name) == _plain(inputs)


def note_made_of(folder: Path, name: str, inputs: Mapping[str, object]) -> None:
    """Note what a file was made of; `is_made_of` then finds it. Call it when older files of that name are gone."""
    if is_made_of(folder, name, inputs):
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MADE_OF, _read(folder) | {name: _plain(inputs)})


def forget(folder: Path, name: str) -> None:
    """Forget what a file was made of, so that it is made again."""
    known = _read(folder)
    if known.pop(name, None) is not None:
        write_json(folder / MADE_OF, known)


def _plain(inputs: Mapping[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(inputs))


def _read(folder: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):  # what cannot be read is made again
        found = json.loads((folder / MADE_OF).read_bytes())
        return found if isinstance(found, dict) else {}
    return {}
