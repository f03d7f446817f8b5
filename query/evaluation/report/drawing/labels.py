"""Names beside points, where there is room for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_SIZE = 8.5
_MOST_LETTERS = 26
# where a name may stand: (right, up) in points from its point, and which of its sides is there
_PLACES = (
    (8, 6, "left", "bottom"),
    (8, -6, "left", "top"),
    (-8, 6, "right", "bottom"),
    (-8, -6, "right", "top"),
    (0, 10, "center", "bottom"),
    (0, -10, "center", "top"),
    (14, 16, "left", "bottom"),
    (14, -16, "left", "top"),
    (-14, -16, "right", "top"),
)


def place_labels(
    axes: "Axes",
    texts: Sequence[tuple[str, float, float]],
    points: Sequence[tuple[float, float]],
    *,
    colour: str,
    paper: str,
) -> None:
    """Write each name beside its point, unless it would cover another name, a point, or the edge of the plot.

    Args:
        axes: With its scales and limits set.
        texts: Name, x and y of each.
        points: x and y of all that must stay visible.
        colour: Of the names.
        paper: Colour behind them.
    """
    axes.figure.draw_without_rendering()  # the layout decides where things are, and then it stays
    axes.figure.set_layout_engine("none")
    inside = axes.get_window_extent()
    taken = [_around(axes, *point) for point in points]
    for name, x, y in texts:
        shown = name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 3]}..."
        for right, up, horizontal, vertical in _PLACES:
            label = axes.annotate(
                shown, (x, y), (right, up), textcoords="offset points", ha=horizontal, va=vertical, color=colour,
                fontsize=_SIZE, zorder=3.5, bbox={"facecolor": paper, "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
            box = label.get_window_extent()
            if _is_within(box, inside) and not any(box.overlaps(other) for other in taken):
                label.set_in_layout(False)
                taken.append(box)
                break
            label.remove()


def _around(axes: "Axes", x: float, y: float) -> "Bbox":
    from matplotlib.transforms import Bbox

    (left, bottom), reach = axes.transData.transform((x, y)), 4.5 * axes.figure.dpi / 72
    return Bbox([[left - reach, bottom - reach], [left + reach, bottom + reach]])


def _is_within(box: "Bbox", other: "Bbox") -> bool:
    return other.x0 <= box.x0 and box.x1 <= other.x1 and other.y0 <= box.y0 and box.y1 <= other.y1
