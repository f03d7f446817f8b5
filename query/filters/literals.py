"""The values that a filter can write, and what a column compares with in their place."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as arrow_types

from query.filters.columns import Column, Kind
from query.filters.syntax import fault, shortened

if TYPE_CHECKING:
    from lark import Token

MAX_DIGITS = 400
"""Of a number, and the size of its exponent: more than any column can hold."""
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?)?")
_CLOCK = re.compile(r"(\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written."""

    token: "Token"
    value: Fraction | str | bool | None

    @property
    def kind(self) -> str:
        """The word for it in errors."""
        words = {Fraction: "a number", str: "a text", bool: "true or false"}
        return words.get(type(self.value), "null")


def read_literal(text: str, token: "Token") -> Literal:
    """The value of a token.

    Raises:
        ConfigError: If it is a number that no column can hold.
    """
    if token.type == "NUMBER":
        written = "".join(token.split())
        digits, _, exponent = written.lower().partition("e")
        if len(digits) > MAX_DIGITS or len(exponent.lstrip("+-0")) > 3 or abs(int(exponent or 0)) > MAX_DIGITS:
            raise fault(text, token.start_pos, "no column can hold this number; write a smaller one")
        return Literal(token, Fraction(written))
    if token.type == "TEXT":
        return Literal(token, token[1:-1].replace("''", "'"))
    return Literal(token, {"TRUE": True, "FALSE": False}.get(token.type))


def as_steps(text: str, column: Column, literal: Literal) -> Fraction:
    """A literal in the steps of a column of whole numbers, decimals, dates or times. It may lie between two steps.

    Raises:
        ConfigError: If the literal is of another kind, or is no date.
    """
    if column.kind is Kind.STEPS:
        return Fraction(_of_type(text, column, literal, Fraction)) / column.step
    written = _of_type(text, column, literal, str)
    seconds = _seconds_of_date(written) if column.kind is Kind.DATES else _seconds_of_clock(written)
    if seconds is None:
        example = "2024-05-31, or 2024-05-31 13:45:00" if column.kind is Kind.DATES else "13:45:00"
        raise fault(text, literal.token.start_pos, f"{shortened(literal.token)} is no such time as '{example}'")
    return seconds / column.step


def limits(column: Column) -> tuple[int, int]:
    """The smallest and the largest value that the type can hold, in steps."""
    kind = column.plain
    if arrow_types.is_decimal(kind):
        return 1 - 10**kind.precision, 10**kind.precision - 1
    bits = kind.bit_width
    return (0, 2**bits - 1) if arrow_types.is_unsigned_integer(kind) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def as_value(text: str, column: Column, literal: Literal) -> Any:
    """A literal as a column of floats, texts or truth values compares with it: float, str or bool.

    Raises:
        ConfigError: If the literal is of another kind.
    """
    if column.kind is Kind.FLOATS:
        return _rounded(_of_type(text, column, literal, Fraction), column.type)
    return _of_type(text, column, literal, str if column.kind is Kind.TEXT else bool)


def as_float(number: Fraction) -> float:
    """The nearest float; infinity if it is too large."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else -float("inf")


def _rounded(number: Fraction, kind: pa.DataType) -> float:
    """The float of the column's precision, so that 0.1 equals the 0.1 of a float32 column."""
    exact = as_float(number)
    with np.errstate(over="ignore"):
        rounded = float(np.dtype(kind.to_pandas_dtype()).type(exact)) if arrow_types.is_floating(kind) else exact
    return rounded if np.isfinite(rounded) else exact


def _of_type(text: str, column: Column, literal: Literal, kind: type) -> Any:
    if isinstance(literal.value, kind):
        return literal.value
    advice = {
        Kind.TRUTH: "write true or false",
        Kind.TEXT: "write a text in single quotation marks",
        Kind.DATES: "write a date in single quotation marks, such as '2024-05-31'",
        Kind.CLOCK: "write a time in single quotation marks, such as '13:45:00'",
    }.get(column.kind, "write a number without quotation marks")
    raise fault(
        text,
        literal.token.start_pos,
        f"column {column.name!r} holds {column.kind.value} ({column.type}), {shortened(literal.token)} is "
        f"{literal.kind}; {advice}",
    )


def _seconds_of_date(written: str) -> Fraction | None:
    """Seconds since 1970 of a date, at midnight if it has no time, in UTC if it has no zone."""
    found = _DATE.fullmatch(written)
    if not found:
        return None
    day, clock, fraction, zone = found.groups()
    try:
        moment = datetime.combine(date.fromisoformat(day), time.fromisoformat(f"{clock or '00:00'}{zone or 'Z'}"))
    except ValueError:
        return None
    since = moment - _EPOCH
    return since.days * 86_400 + since.seconds + _fraction(fraction)


def _seconds_of_clock(written: str) -> Fraction | None:
    found = _CLOCK.fullmatch(written)
    if not found:
        return None
    try:
        clock = time.fromisoformat(found[1])
    except ValueError:
        return None
    return clock.hour * 3_600 + clock.minute * 60 + clock.second + _fraction(found[2])


def _fraction(digits: str | None) -> Fraction:
    return Fraction(int(digits), 10 ** len(digits)) if digits else Fraction(0)
