"""What conditions and images are called in the files of other tools."""

from query.evaluation.record import ConditionRecord


def pretrained_of(condition: ConditionRecord, is_baseline: bool) -> str:
    """The pretrained tag, and for all but the baseline the name of the condition, such as `openai, l2 0.7`.

    Other tools know a result by its model and this tag, so no two conditions may share both.
    """
    tags = [condition.pretrained, None if is_baseline else condition.name]
    return ", ".join(tag for tag in tags if tag)


def without_blanks(key: str) -> str:
    """A key as one word: blanks, control characters and % are percent-encoded, so that no two keys become one."""
    return "".join(
        character
        if character.isprintable() and not character.isspace() and character != "%"
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        for character in key
    )
