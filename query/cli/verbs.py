"""The verbs by group, and the module of each. A verb's module is imported on demand."""

import importlib
import keyword
from typing import Any, Protocol, cast

GROUPS = {
    "make": ("demo", "embed", "import", "adapt", "index"),
    "find": ("search", "serve", "inspect"),
    "measure": ("evaluate", "sweep", "bench model", "bench gpu", "doctor"),
    "keep": ("verify", "delete", "compact"),
}
RESUMING = ("embed", "import", "adapt", "sweep", "compact")
"""The verbs that keep what is done when they are interrupted, and go on from there."""

COUNTING_MEMORY = ("index",)
"""The verbs that keep to a limit of memory, and therefore give back what they no longer use."""

REPLACED = {"bench policies": "`clipsieve sweep GRID.yaml --out DIR`, which shows an old grid in its new spelling"}
"""Verbs that are gone, and what to use instead."""

VERBS = (*(verb for verbs in GROUPS.values() for verb in verbs), "completion")


class Verb(Protocol):
    """What a verb's module holds. It imports nothing heavy at the top of the file, so that `--help` is quick."""

    SUMMARY: str
    EXAMPLES: str
    SETTINGS: str
    """Settings class, as `module:Class`."""

    @staticmethod
    def run(settings: Any) -> None:
        """Run the verb and show the results."""


def module_of(verb: str) -> Verb:
    """Import the module of a verb: `bench model` is in bench_model.py, `import` (a keyword of Python) in import_.py."""
    name = f"{verb}_" if keyword.iskeyword(verb) else verb.replace(" ", "_")
    return cast(Verb, importlib.import_module(f"query.cli.{name}"))


def settings_class(verb: str) -> Any:
    """The settings class of a verb."""
    module, _, name = module_of(verb).SETTINGS.partition(":")
    return getattr(importlib.import_module(module), name)


def flags_of(verb: str) -> set[str]:
    """The flags of a verb, in every spelling."""
    from pipeline.settings.flags import flag_names

    return flag_names(settings_class(verb))
