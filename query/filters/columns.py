"""The columns that a filter can name, and their values, batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

import pyarrow as pa
import pyarrow.compute as pc

Values = Callable[[pa.RecordBatch], pa.Array]
"""What a batch gives: values of a column, or a truth value (true, false or null) per row."""

_is = pa.types
_SECONDS = {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6), "ns": Fraction(1, 10**9)}
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


class Kind(Enum):
    """What a column holds. The value is the word for it in errors."""

    STEPS = "numbers"
    """Whole multiples of a step: integers and decimals."""
    FLOATS = "numbers (floating point)"
    TEXT = "text"
    TRUTH = "true or false"
    DATES = "dates or times"
    CLOCK = "times of day"
    NOTHING = "nothing but null"
    OTHER = "values that cannot be compared"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the index."""

    name: str
    type: pa.DataType

    @property
    def plain(self) -> pa.DataType:
        """The type of the values as they are compared: neither a dictionary nor a layout that Arrow cannot compare."""
        kind = self.type.storage_type if isinstance(self.type, pa.BaseExtensionType) else self.type
        kind = kind.value_type if _is.is_dictionary(kind) else kind
        if _is.is_string(kind) or _is.is_string_view(kind):
            return pa.large_string()
        if _is.is_decimal(kind) and kind.bit_width < 128:
            return pa.decimal128(kind.precision, kind.scale)
        return pa.float32() if _is.is_float16(kind) else kind

    @property
    def kind(self) -> Kind:
        """What it holds."""
        kind = self.plain
        tests = {
            Kind.STEPS: _is.is_integer(kind) or _is.is_decimal(kind),
            Kind.FLOATS: _is.is_floating(kind),
            Kind.TEXT: _is.is_large_string(kind),
            Kind.TRUTH: _is.is_boolean(kind),
            Kind.DATES: _is.is_date(kind) or _is.is_timestamp(kind),
            Kind.CLOCK: _is.is_time(kind),
            Kind.NOTHING: _is.is_null(kind),
        }
        return next((name for name, is_it in tests.items() if is_it), Kind.OTHER)

    @property
    def step(self) -> Fraction:
        """What the values are multiples of: for numbers as such, for dates and times in seconds."""
        kind = self.plain
        if _is.is_decimal(kind):
            return Fraction(10) ** -kind.scale
        if _is.is_date32(kind):
            return Fraction(86_400)
        if _is.is_date64(kind):
            return _SECONDS["ms"]
        return _SECONDS[kind.unit] if _is.is_temporal(kind) else Fraction(1)

    def stored(self, batch: pa.RecordBatch) -> pa.Array:
        """The values as they are stored."""
        return batch.column(self.name)

    def values(self, batch: pa.RecordBatch) -> pa.Array:
        """The values in the plain type; dates and times as whole numbers of steps."""
        found = self.stored(batch)
        found = found.storage if isinstance(found, pa.ExtensionArray) else found
        if found.type != self.plain:
            found = found.cast(self.plain)
        if self.kind in (Kind.DATES, Kind.CLOCK):
            return found.cast(pa.int32() if self.plain.bit_width == 32 else pa.int64())
        return found

    def floats(self, batch: pa.RecordBatch) -> pa.Array:
        """The values as float64. A text that is not a finite number is null."""
        found = self.values(batch)
        if self.kind is not Kind.TEXT:
            return found.cast(pa.float64(), safe=False)  # whole numbers beyond 2^53 are rounded
        try:
            numbers = found.cast(pa.float64())
        except pa.ArrowInvalid:  # some are not: find out which, which takes ten times as long
            found = pc.utf8_trim_whitespace(found)
            is_number = pc.match_substring_regex(found, _NUMBER)
            found = pc.utf8_ltrim(pc.if_else(is_number, found, pa.scalar(None, found.type)), "+")
            numbers = found.cast(pa.float64())
        return pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, pa.float64()))

    def exact(self, batch: pa.RecordBatch) -> pa.Array:
        """Numbers, dates or times as decimals, so that columns of different steps compare exactly."""
        found = self.values(batch)
        if _is.is_decimal(self.plain):
            return found.cast(pa.decimal256(self.plain.precision, self.plain.scale))
        found = found.cast(pa.decimal256(20, 0))
        nanoseconds = self.step * 10**9
        return pc.multiply(found, pa.scalar(int(nanoseconds)).cast(pa.decimal256(20, 0))) if self.is_time else found

    @property
    def is_time(self) -> bool:
        """Whether it holds dates or times."""
        return self.kind in (Kind.DATES, Kind.CLOCK)
