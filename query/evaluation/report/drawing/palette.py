"""The colours of drawings: light for files, and both for the page. Contrast with the paper is 3:1 or more."""

from dataclasses import dataclass

# name: (light, dark). All light ones differ: by them, a colour in an SVG is told which variable it becomes.
_COLOURS = {
    "paper": ("#ffffff", "#1d2022"),
    "ink": ("#1b1c1d", "#ecedec"),
    "soft": ("#5c5e60", "#a6aaac"),
    "grid": ("#e3e1dc", "#34393c"),
    "front": ("#c6e4e1", "#27605f"),
    "loss": ("#c2410c", "#f2a46f"),
    "gain": ("#15803d", "#66d394"),
    "series-0": ("#0b6b6b", "#63c7c1"),
    "series-1": ("#b8500a", "#f5a76c"),
    "series-2": ("#5546b5", "#b1a5ff"),
    "series-3": ("#a3204c", "#ff95b0"),
    "series-4": ("#1666c0", "#7db7ff"),
    "series-5": ("#5d6b00", "#c3d061"),
    "series-6": ("#7a4a2b", "#d9ad8c"),
    "series-7": ("#1d7a35", "#74d492"),
    "rival-0": ("#6f8796", "#7f97a6"),
    "rival-1": ("#96806f", "#a99280"),
    "rival-2": ("#8b7f9b", "#998dab"),
    "rival-3": ("#7c8a6a", "#8d9c7a"),
    "rival-4": ("#9c7a88", "#ae8b9a"),
    "rival-5": ("#868686", "#969696"),
}
_MARKERS = "oDs^vP<>Xph"
_RIVAL_MARKERS = "osv^D<>ph"
LIGHT = {name: light for name, (light, _) in _COLOURS.items()}
VARIABLE_OF = {light: f"plot-{name}" for name, light in LIGHT.items()}
"""CSS variable of each light colour."""


@dataclass(frozen=True, slots=True)
class Style:
    """How the conditions of a series are drawn. No two series share both colour and marker, up to 54 of a kind."""

    colour: str
    marker: str
    is_filled: bool


def style_of(number: int, is_rival: bool) -> Style:
    """The style of a series, by its number among the series of its kind."""
    kind, markers = ("rival", _RIVAL_MARKERS) if is_rival else ("series", _MARKERS)
    num_colours = sum(name.startswith(kind) for name in _COLOURS)
    # one more for each round of the colours, so that they meet other markers
    marker = markers[(number + number // num_colours) % len(markers)]
    return Style(LIGHT[f"{kind}-{number % num_colours}"], marker, not is_rival)


def variables(dark: bool) -> str:
    """The declarations of the CSS variables."""
    return " ".join(f"--plot-{name}: {both[dark]};" for name, both in _COLOURS.items())
