"""Numbers and names as people read them."""

import math
import re
from collections.abc import Callable

from query.evaluation.results import Estimate

MINUS = "\N{MINUS SIGN}"
_TASKS = {"image_retrieval": "", "text_retrieval": "image to text "}
_SHORT = {"recall": "R", "median_rank": "median rank", "mrr": "MRR", "ndcg": "nDCG"}
_VARIANT = re.compile(r"\((expected|epsilon|duplicates)\)$")
VARIANTS = ("expected", "epsilon", "duplicates")


def code(name: str) -> str:
    """A name that tables and sentences show as code."""
    return f"`{name.replace('`', chr(39))}`"


def variant_of(metric: str) -> str | None:
    """The variant that a metric is of: `expected`, `epsilon` or `duplicates`; None for the strict one."""
    found = _VARIANT.search(metric)
    return found[1] if found else None


def short(metric: str) -> str:
    """A metric's name in a sentence, such as R@5."""
    variant = variant_of(metric)
    plain = metric.removesuffix(f"({variant})")
    for task, words in _TASKS.items():
        if plain.startswith(f"{task}_"):
            rest = plain.removeprefix(f"{task}_")
            kind, at, k = rest.partition("@")
            tail = " p5" if k.endswith("_p5") else ""
            plain = f"{words}{_SHORT.get(kind, kind)}{at}{k.removesuffix('_p5')}{tail}"
    plain = re.sub(r"^acc(\d+)$", r"accuracy@\1", plain)
    return f"{plain} ({variant})" if variant else plain


def is_share(metric: str) -> bool:
    """Whether it is a share of queries or of answers, which people read in percent and points."""
    return "recall@" in metric or metric.startswith("acc")


def unit(metric: str) -> str:
    """What follows the name of a metric in a heading."""
    return ", %" if is_share(metric) else ""


def value(metric: str, estimate: Estimate) -> tuple[str, str]:
    """A metric and its interval."""
    return _both(estimate, lambda number: _plain(metric, number))


def difference(metric: str, estimate: Estimate) -> tuple[str, str]:
    """A difference of a metric and its interval, with signs; points where the metric is a share."""
    return _both(estimate, lambda number: signed(_plain(metric, number)))


def interval(metric: str, estimate: Estimate) -> str:
    """The interval of a metric, or of a loss of it."""
    return value(metric, estimate)[1]


def loss(estimate: Estimate) -> Estimate:
    """The loss that a difference is."""
    return Estimate(-estimate.value, -estimate.high, -estimate.low, estimate.method, estimate.detectable)


def times(estimate: Estimate, digits: int = 2) -> tuple[str, str]:
    """A ratio and its interval."""
    ratio, interval = _both(estimate, lambda number: f"{number:,.{digits if abs(number) < 10 else 0}f}x")
    return ratio, "" if estimate.low == estimate.high else interval.replace("x", "")


def rate(estimate: Estimate) -> tuple[str, str]:
    """Images per second and their interval."""
    return _both(estimate, lambda number: f"{number:,.{0 if number >= 100 else 1}f}")


def signed(number: str) -> str:
    """A number with a true minus sign, or a plus."""
    if not _has_digits(number):
        return number.lstrip("-")
    return f"{MINUS}{number[1:]}" if number.startswith("-") else f"+{number}"


def amount(metric: str, number: float) -> str:
    """How much of a metric, without a sign: in points where it is a share."""
    return _plain(metric, abs(number))


def within(estimate: Estimate) -> tuple[float, float]:
    """The interval of a number, as drawings need it: only the number itself where there is none."""
    low = estimate.low if math.isfinite(estimate.low) else estimate.value
    high = estimate.high if math.isfinite(estimate.high) else estimate.value
    return low, high


def so_many_points(points: float, metric: str) -> str:
    """So many points of a metric."""
    return f"{points:g} {'point' if points == 1 else 'points'} of {short(metric)}"


def plural(count: int, noun: str) -> str:
    """A count of something."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _plain(metric: str, number: float) -> str:
    if math.isnan(number):
        return "n/a"
    if is_share(metric):
        return f"{100 * number:.1f}"
    return f"{number:.1f}" if "rank" in metric else f"{number:.3f}"


def _both(estimate: Estimate, text_of: Callable[[float], str]) -> tuple[str, str]:
    number, low, high = map(_without_minus_zero, map(text_of, (estimate.value, estimate.low, estimate.high)))
    interval = (
        "" if estimate.method == "none" or not math.isfinite(estimate.high - estimate.low) else f"{low} to {high}"
    )
    return number.replace("-", MINUS), interval.replace("-", MINUS)


def _without_minus_zero(number: str) -> str:
    return number if _has_digits(number) else number.lstrip("-")


def _has_digits(number: str) -> bool:
    """Whether any digit is not 0."""
    return any(digit in number for digit in "123456789")
