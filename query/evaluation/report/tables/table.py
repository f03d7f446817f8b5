"""What a table is, before it becomes HTML or Markdown. Text between backticks is shown as code."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """What is in one place of a table."""

    text: str
    note: str = ""
    """Shown smaller: an interval, and what else one has to know, line by line."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    title: str
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that belong together, under a title if it has one."""

    title: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first cell of each row is its heading."""

    id: str
    """Unique in the report."""
    caption: str
    columns: Sequence[Column]
    groups: Sequence[Group]

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return sum(len(group.rows) for group in self.groups)


def plain_table(id: str, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table whose rows are all of one kind."""
    return Table(id, caption, columns, [Group("", rows)])


def cell(both: tuple[str, str]) -> Cell:
    """A number and its interval."""
    return Cell(*both)


NOTHING = Cell("")
