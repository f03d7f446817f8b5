"""Why a worker failed, read from what Ray says about it. Pure functions."""

import re

_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PLACE = re.compile(r'^ +File "(.+)", line (\d+)')


def cause_of(error: BaseException) -> str:
    """What a worker raised and where, uncut, as one line without terminal codes; else the whole message.

    Ray's message holds the traceback of the worker, which ends with what was raised.
    """
    lines = _TERMINAL_CODES.sub("", str(error)).splitlines()
    raised, place = lines, ""
    for number, line in enumerate(lines):
        if found := _PLACE.match(line):
            place = " ({}, line {})".format(*found.groups())
            raised = _from_the_margin(lines[number + 1 :])
    if not raised:  # a traceback without an end
        raised, place = lines, ""
    return f"{' '.join(' '.join(raised).split())}{place}" if lines else type(error).__name__


def _from_the_margin(lines: list[str]) -> list[str]:
    """The lines after those that show the code of the last place, which are indented."""
    first = next((number for number, line in enumerate(lines) if line and not line[0].isspace()), len(lines))
    return lines[first:]
