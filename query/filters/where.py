"""A filter: parsed once, then evaluated over the rows of an index."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, first_line, on_one_line
from query.filters.columns import Column, Kind, Values
from query.filters.compare import (
    TURNED,
    all_of,
    any_of,
    compare_columns,
    compare_literal,
    is_in,
    like,
)
from query.filters.literals import Literal, read_literal
from query.filters.syntax import fault, parse, shortened

if TYPE_CHECKING:
    from lark import Token, Tree

    from indexer.rows.mapped import MappedRows

MAX_DEPTH = 100
"""Of conditions inside conditions: far below the depth at which Python gives up."""
MAX_LISTED = 40
"""Columns that an error lists."""


@dataclass(frozen=True, slots=True)
class Where:
    """A filter that was parsed. Safe to use from several threads, and on any rows with the same columns."""

    text: str
    """As it was written."""
    columns: tuple[str, ...]
    """The columns that it reads."""
    _test: Values = field(repr=False, compare=False)

    def mask(self, rows: "MappedRows") -> np.ndarray:
        """Where it is true (bool [N], by position): not where it is false, or null because a value is missing.

        Raises:
            ConfigError: If Arrow cannot evaluate it.
            StoreError: If the rows are damaged.
        """
        kept_N = np.empty(rows.num_rows, bool)
        start = 0
        for batch in rows.batches(self.columns):
            try:
                found = pc.fill_null(self._test(batch), False)
            except pa.ArrowException as error:  # such as text that is not UTF-8
                raise ConfigError(f"where: the filter cannot be evaluated: {first_line(error)}") from error
            kept_N[start : start + len(found)] = found.to_numpy(zero_copy_only=False)
            start += len(found)
        return kept_N


def parse_where(text: str, schema: pa.Schema) -> Where:
    """Parse a filter for rows with some columns, and `id`.

    Args:
        text: Such as `width > 512 and caption like '%dog%'`; query/README.md has the language.
        schema: The columns of the rows, without `id`.

    Raises:
        ConfigError: If the text is not in the language, names an unknown column, or compares what cannot be compared.
            The message has the position.
    """
    reader = _Reader(text, schema)
    test = reader.condition(parse(text), 1)
    return Where(text, tuple(dict.fromkeys(reader.used)), test)


class _Reader:
    """From the tree of a filter to a test of record batches."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text = text
        self._columns = {"id": Column("id", pa.int64())} | {one.name: Column(one.name, one.type) for one in schema}
        self.used: list[str] = []

    def condition(self, tree: "Tree", depth: int) -> Values:
        """The test of a condition. `depth` counts the conditions around it."""
        if depth > MAX_DEPTH:
            message = f"more than {MAX_DEPTH} conditions inside each other; write them side by side"
            raise fault(self._text, tree.meta.start_pos, message)
        if tree.data in ("any", "all"):
            tests = [self.condition(child, depth + 1) for child in tree.children]
            return any_of(tests) if tree.data == "any" else all_of(tests)
        if tree.data == "negation":
            return _negated(self.condition(tree.children[0], depth + 1))
        return getattr(self, f"_{tree.data}")(*tree.children)

    def _alone(self, token: "Token") -> Values:
        operand = self._operand(token)
        if isinstance(operand, Literal):
            if not isinstance(operand.value, bool):
                raise fault(self._text, token.start_pos, f"{operand.kind} is no condition; compare a column with it")
            value = operand.value
            return lambda batch: pa.repeat(pa.scalar(value), batch.num_rows)
        if operand.kind is Kind.NOTHING:
            return lambda batch: pa.nulls(batch.num_rows, pa.bool_())
        if operand.kind is not Kind.TRUTH:
            message = f"column {operand.name!r} holds {operand.kind.value} ({operand.type}); compare it with something"
            raise fault(self._text, token.start_pos, message)
        return operand.values

    def _comparison(self, left: "Token", operator: "Token", right: "Token") -> Values:
        return self._compared(left, {"==": "=", "<>": "!="}.get(operator, str(operator)), right)

    def _compared(self, left: "Token", operator: str, right: "Token") -> Values:
        one, other = self._operand(left), self._operand(right)
        if isinstance(one, Literal) and isinstance(other, Literal):
            raise fault(self._text, left.start_pos, "a comparison needs a column on at least one side")
        if isinstance(one, Literal):
            return compare_literal(self._text, TURNED[operator], other, one)
        if isinstance(other, Literal):
            return compare_literal(self._text, operator, one, other)
        return compare_columns(self._text, right.start_pos, operator, one, other)

    def _between(self, value: "Token", negated: "Token | None", low: "Token", high: "Token") -> Values:
        return _negated(all_of([self._compared(value, ">=", low), self._compared(value, "<=", high)]), negated)

    def _is_null(self, token: "Token", negated: "Token | None") -> Values:
        column = self._column_only(token)
        test = pc.is_valid if negated else pc.is_null
        return lambda batch: test(column.stored(batch))

    def _is_in(self, token: "Token", negated: "Token | None", *values: "Token") -> Values:
        column = self._column_only(token)
        literals = [read_literal(self._text, value) for value in values]
        return _negated(is_in(self._text, column, literals), negated)

    def _like(
        self, token: "Token", negated: "Token | None", word: "Token", pattern: "Token", escape: "Token | None"
    ) -> Values:
        column = self._column_only(token)
        read = [None if one is None else read_literal(self._text, one) for one in (pattern, escape)]
        return _negated(like(self._text, column, *read, ignore_case=word.type == "ILIKE"), negated)

    def _operand(self, token: "Token") -> Column | Literal:
        return self._column(token) if token.type in ("NAME", "QUOTED") else read_literal(self._text, token)

    def _column_only(self, token: "Token") -> Column:
        if token.type in ("NAME", "QUOTED"):
            return self._column(token)
        raise fault(self._text, token.start_pos, "expected a column before IS, IN or LIKE")

    def _column(self, token: "Token") -> Column:
        name = token[1:-1].replace('""', '"') if token.type == "QUOTED" else str(token)
        found = [name] if name in self._columns else [one for one in self._columns if one.lower() == name.lower()]
        if len(found) != 1:
            raise self._unknown(token, name, found)
        self.used.append(found[0])
        return self._columns[found[0]]

    def _unknown(self, token: "Token", name: str, similar: Sequence[str]) -> Exception:
        if similar:
            return fault(self._text, token.start_pos, f"column '{name}' could be {' or '.join(similar)}; write one")
        known = list(self._columns)
        listed = ", ".join(known[:MAX_LISTED]) + (f" and {len(known) - MAX_LISTED} more" if known[MAX_LISTED:] else "")
        lower = {one.lower(): one for one in known}
        near = difflib.get_close_matches(name.lower(), lower, 1)
        parts = [f"there is no column '{shortened(name)}'" + (f" (did you mean {lower[near[0]]}?)" if near else "")]
        if not near or token.type == "QUOTED":
            parts.append("text goes in single quotation marks")
        parts.append(f"the columns are {on_one_line(listed)}")
        return fault(self._text, token.start_pos, "; ".join(parts))


def _negated(test: Values, negated: "Token | bool | None" = True) -> Values:
    return (lambda batch: pc.invert(test(batch))) if negated else test
