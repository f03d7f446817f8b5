"""The axis of recall: logit, which has no place for 0 % and 100 %, so that these get one at its ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from query.evaluation.report import words
from query.evaluation.results import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DEPTH = 1.6
"""How far below the baseline values are shown, in log-odds: from 50 % to 17 %."""
_REACH = 0.5
"""How far it goes beyond the values for the sake of intervals, in log-odds; longer ones are cut."""
_NARROWEST = 1e-4
_NUM_TICKS = 9


@dataclass(frozen=True, slots=True)
class RecallScale:
    """Where shares are on the axis."""

    floor: float
    """Where 0 % is: half as far from the axis' end as the smallest share above it."""
    ceiling: float
    """Where 100 % is."""
    bottom: float
    """The lowest place that is shown."""
    top: float

    def place(self, share: float) -> float:
        """Where a share is: where it belongs, unless it is 0 or 1, or all but."""
        return min(max(share, self.floor), self.ceiling)

    def shows(self, estimate: Estimate) -> bool:
        """Whether a number is on the axis; far below the baseline, it is not."""
        return self.place(estimate.value) >= self.bottom - 1e-12

    def interval(self, estimate: Estimate) -> tuple[float, float]:
        """Where the ends of its interval are."""
        low, high = words.within(estimate)
        return self.place(low), self.place(high)

    def set_up(self, axes: "Axes") -> None:
        """Make the y axis of a plot this scale."""
        from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

        room = 0.06 * (_logit(self.top) - _logit(self.bottom)) + 0.02
        low, high = _expit(_logit(self.bottom) - room), _expit(_logit(self.top) + room)
        axes.set_yscale("logit")
        axes.set_ylim(low, high)
        ticks = MaxNLocator(_NUM_TICKS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        labels = {
            share: f"{100 * share:g}" for share in ticks if max(low, self.floor) < share < min(high, self.ceiling)
        }
        labels |= {end: name for end, name in ((self.floor, "0"), (self.ceiling, "100")) if low < end < high}
        axes.yaxis.set_major_locator(FixedLocator(list(labels)))
        axes.yaxis.set_major_formatter(FixedFormatter(list(labels.values())))
        axes.yaxis.set_minor_locator(NullLocator())


def scale_of(recalls: Sequence[Estimate]) -> RecallScale:
    """A scale for the conditions of a plot, the baseline first."""
    ends = [end for recall in recalls for end in (recall.value, *words.within(recall))]
    # a little less than 1 is 1 to a reader, too
    gaps = [min(end, 1 - end) for end in ends if _NARROWEST < end < 1 - _NARROWEST]
    room = min([0.02, *(gap / 2 for gap in gaps)])
    unlimited = RecallScale(room, 1 - room, 0, 1)
    places = [place for recall in recalls for place in (unlimited.place(recall.value), *unlimited.interval(recall))]
    values = [unlimited.place(recall.value) for recall in recalls]
    lowest = min(value for value in values if _logit(value) >= _logit(values[0]) - _DEPTH)
    deepest, highest = _expit(_logit(lowest) - _REACH), _expit(_logit(max(values)) + _REACH)
    return RecallScale(room, 1 - room, max(min(places), deepest), min(max(places), highest))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _expit(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))
