"""Comparisons of a column, as functions from a record batch to a truth value per row: true, false or null."""

import math
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as arrow_types

from query.filters.columns import Column, Kind, Values
from query.filters.literals import Literal, as_float, as_steps, as_value, limits
from query.filters.syntax import fault

_OPERATORS: dict[str, Callable[..., pa.Array]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
TURNED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""The comparison with its sides exchanged."""
_NUMBERS = (Kind.STEPS, Kind.FLOATS)
_EXACT = (Kind.STEPS, Kind.DATES, Kind.CLOCK)
"""What the types hold is whole multiples of a step, so that comparisons are exact."""


def compare_literal(text: str, operator: str, column: Column, literal: Literal) -> Values:
    """Compare a column with a literal.

    Args:
        text: The filter, for errors.
        operator: One of the keys of `TURNED`.
        column: The left side.
        literal: The right side.

    Raises:
        ConfigError: If the two cannot be compared.
    """
    position = literal.token.start_pos
    refuse_other(text, position, column)
    if literal.value is None:
        raise fault(text, position, "nothing equals null; write `is null` or `is not null`")
    if column.kind is Kind.NOTHING:
        return _always_null
    if column.kind in _EXACT:
        steps = as_steps(text, column, literal)
        whole, (low, high) = math.floor(steps), limits(column)
        is_within = low <= whole <= high
        if steps != whole or not is_within:  # no value of the column equals it
            if operator in ("=", "!="):
                return _constant(column, operator == "!=")
            if not is_within:
                return _constant(column, (operator in ("<", "<=")) == (whole > high))
            operator = "<=" if operator in ("<", "<=") else ">"
        read, scalar = column.values, _step_scalar(column, whole)
    else:
        read, scalar = _inexact(text, column, literal)
    compared = _OPERATORS[operator]
    return lambda batch: compared(read(batch), scalar)


def compare_columns(text: str, position: int, operator: str, left: Column, right: Column) -> Values:
    """Compare two columns, row by row. `position` is where errors point.

    Raises:
        ConfigError: If the two cannot be compared.
    """
    for column in (left, right):
        refuse_other(text, position, column)
    compared, kinds = _OPERATORS[operator], {left.kind, right.kind}
    if Kind.NOTHING in kinds:
        return _always_null
    if kinds <= {*_NUMBERS, Kind.TEXT} and kinds & {*_NUMBERS} and kinds != {Kind.STEPS}:
        return lambda batch: compared(left.floats(batch), right.floats(batch))
    if len(kinds) > 1:
        raise fault(
            text,
            position,
            f"column {left.name!r} holds {left.kind.value} ({left.type}), column {right.name!r} holds "
            f"{right.kind.value} ({right.type}); compare columns of the same kind",
        )
    if left.plain != right.plain:
        return lambda batch: compared(left.exact(batch), right.exact(batch))
    return lambda batch: compared(left.values(batch), right.values(batch))


def is_in(text: str, column: Column, literals: Sequence[Literal]) -> Values:
    """Whether a column's value is one of some. With a null among them, the others are null instead of false.

    Raises:
        ConfigError: If the column cannot be compared with one of them.
    """
    refuse_other(text, literals[0].token.start_pos, column)
    if column.kind is Kind.NOTHING:
        return _always_null
    low, high = limits(column) if column.kind in _EXACT else (0, 0)
    groups: dict[Values, list[pa.Scalar]] = {}
    for literal in literals:
        if literal.value is None:
            continue
        if column.kind not in _EXACT:
            read, scalar = _inexact(text, column, literal)
            groups.setdefault(read, []).append(scalar)
            continue
        steps = as_steps(text, column, literal)
        if steps.denominator == 1 and low <= steps <= high:
            groups.setdefault(column.values, []).append(_step_scalar(column, int(steps)))
    tests = [_among(read, pa.array(scalars, scalars[0].type)) for read, scalars in groups.items()]
    if any(literal.value is None for literal in literals):
        tests.append(_always_null)
    return any_of(tests or [_constant(column, False)])


def like(text: str, column: Column, pattern: Literal, escape: Literal | None, ignore_case: bool) -> Values:
    """Whether a column's text matches a pattern: % stands for any characters, _ for one.

    Raises:
        ConfigError: If the column does not hold text, or the escape character is misused.
    """
    position = pattern.token.start_pos
    if column.kind is Kind.NOTHING:
        return _always_null
    if column.kind is not Kind.TEXT:
        found = f"column {column.name!r} holds {column.kind.value} ({column.type})"
        raise fault(text, position, f"{found}; LIKE needs text")
    pieces, rest = [], iter(pattern.value)
    if escape is not None and len(escape.value) != 1:
        raise fault(text, escape.token.start_pos, "ESCAPE needs one character, such as '!'")
    for character in rest:
        if escape is not None and character == escape.value:
            character = next(rest, "")
            if character not in ("%", "_", escape.value):
                raise fault(text, position, f"{escape.value} must stand before %, _ or itself")
            pieces.append(f"\\{character}" if character in "%_\\" else character)
        else:
            pieces.append("\\\\" if character == "\\" else character)  # what Arrow escapes with
    return lambda batch: pc.match_like(column.values(batch), "".join(pieces), ignore_case=ignore_case)


def refuse_other(text: str, position: int, column: Column) -> None:
    """Refuse a column whose values cannot be compared, such as lists.

    Raises:
        ConfigError: If it is one.
    """
    if column.kind is Kind.OTHER:
        raise fault(text, position, f"column {column.name!r} is {column.type}; only `is null` can be asked of it")


def any_of(tests: Sequence[Values]) -> Values:
    """Whether one of some conditions is true."""
    return _joined(tests, pc.or_kleene)


def all_of(tests: Sequence[Values]) -> Values:
    """Whether all of some conditions are true."""
    return _joined(tests, pc.and_kleene)


def _joined(tests: Sequence[Values], join: Callable[..., pa.Array]) -> Values:
    def joined(batch: pa.RecordBatch) -> pa.Array:
        found = tests[0](batch)
        for test in tests[1:]:
            found = join(found, test(batch))
        return found

    return joined


def _among(values: Values, among: pa.Array) -> Values:
    def test(batch: pa.RecordBatch) -> pa.Array:
        found = values(batch)
        return pc.if_else(pc.is_valid(found), pc.is_in(found, value_set=among), pa.scalar(None, pa.bool_()))

    return test


def _constant(column: Column, is_true: bool) -> Values:
    """The same for all rows, but null where the column is null."""
    return lambda batch: pc.if_else(pc.is_valid(column.stored(batch)), pa.scalar(is_true), pa.scalar(None, pa.bool_()))


def _always_null(batch: pa.RecordBatch) -> pa.Array:
    return pa.nulls(batch.num_rows, pa.bool_())


def _inexact(text: str, column: Column, literal: Literal) -> tuple[Values, pa.Scalar]:
    """How to read a column of floats, texts or truth values, and what to compare it with in a literal's place."""
    if column.kind is Kind.TEXT and isinstance(literal.value, Fraction):
        return column.floats, pa.scalar(as_float(literal.value))
    value = as_value(text, column, literal)
    if column.kind is Kind.FLOATS:
        return column.floats, pa.scalar(value)
    return column.values, pa.scalar(value, column.plain)


def _step_scalar(column: Column, steps: int) -> pa.Scalar:
    """A number of steps as the column's values are."""
    if column.is_time:
        return pa.scalar(steps, pa.int32() if column.plain.bit_width == 32 else pa.int64())
    if not arrow_types.is_decimal(column.plain):
        return pa.scalar(steps, column.plain)
    value: Any = Decimal(steps).scaleb(-column.plain.scale, Context(prec=80))
    return pa.scalar(value, column.plain)
