"""Why a worker failed, read from what Ray says about it. Pure functions."""

import re

_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PLACE = re.compile(r'^ +File "(?P<path>.+)", line (?P<number>\d+)')


def cause_of(error: BaseException) -> str:
    """What a worker raised and where, uncut, as one line without terminal codes; else the whole message.

    Ray's message holds the traceback of the worker. What was raised follows the last place in it.
    """
    lines = _TERMINAL_CODES.sub("", str(error)).splitlines()
    places = [number for number, line in enumerate(lines) if _PLACE.match(line)]
    if not places:
        return " ".join(" ".join(lines).split()) or type(error).__name__
    after = lines[places[-1] + 1 :]
    raised = next((number for number, line in enumerate(after) if line and not line[0].isspace()), 0)
    path, line_number = _PLACE.match(lines[places[-1]]).group("path", "number")
    return f"{' '.join(' '.join(after[raised:]).split())} ({path}, line {line_number})"
