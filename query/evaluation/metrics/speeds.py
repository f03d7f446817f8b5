"""How fast each condition is, from timed rounds."""

from collections.abc import Sequence

from query.evaluation.raw.timings import Round
