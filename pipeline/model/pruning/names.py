"""Names that stand for baselines in tables, and what a policy's own name may be."""

from pipeline.errors import ConfigError

UNPRUNED = "none"
OPEN_CLIP = "open_clip"
"""In benchmarks, the model as open_clip's users call it."""

ADAPTED = "+adapter"
"""In evaluations, the end of a policy's name if an adapter makes up for it."""

CONTROL = f"{UNPRUNED}+control"
"""In evaluations, the unpruned model with an adapter that was trained without pruning."""

_MAX_NAME = 100


def plain_name(name: str) -> str:
    """A name as a reader takes it in: without blanks around it, whatever its case."""
    return name.strip().lower()


def refuse_reserved(name: str, where: str) -> None:
    """Refuse a name from a file that a reader of a table would take for a baseline, or that is not one line of text.

    Raises:
        ConfigError: If the name is refused; says where it was found.
    """
    if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
        raise ConfigError(f"{where}: name = {name!r}: expected 1 to {_MAX_NAME} printable characters; rename it")
    if plain_name(name) in (UNPRUNED, OPEN_CLIP, CONTROL) or plain_name(name).endswith(ADAPTED):
        raise ConfigError(f"{where}: name = {name!r} is the name of a baseline; give the policy another `name`")
