"""Text on pictures, in any script that a font of this machine has."""

from collections.abc import Iterable
from functools import cache

from PIL import ImageFont

_DEFAULT = ""
# Pillow's own font has Latin letters only; the others are looked for where the system keeps its fonts
_FONTS = (
    _DEFAULT,
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "arial.ttf",
)
_NO_CHARACTER = "\U0010ffff"  # fonts draw their box for it


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has every character of a text, or else the one that has the most of them."""
    return min(_fonts(size), key=lambda font: len(missing_in(font, text)))


def missing_in(font: ImageFont.FreeTypeFont, text: Iterable[str]) -> set[str]:
    """The characters that a font would draw as boxes."""
    return {character for character in set(text) if not character.isspace() and not _has(font, character)}


def one_line(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A text on one line, without characters that the font lacks, cut to a width in pixels."""
    missing = missing_in(font, text)
    shown = ("?" if character in missing else character if character.isprintable() else " " for character in text)
    text = "".join(shown)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def lines_of(text: str, font: ImageFont.FreeTypeFont, width: float, num_lines: int) -> list[str]:
    """A text on a few lines, cut anywhere to a width in pixels: it may be a path without blanks."""
    lines: list[str] = []
    while text and len(lines) < num_lines:
        length = len(text)
        while length > 1 and font.getlength(text[:length]) > width:
            length -= 1
        if len(lines) == num_lines - 1 and length < len(text):
            return [*lines, one_line(text, font, width)]
        lines.append(text[:length].strip())
        text = text[length:]
    return lines


@cache
def _fonts(size: int) -> list[ImageFont.FreeTypeFont]:
    found = []
    for name in _FONTS:
        try:
            found.append(ImageFont.truetype(name, size) if name else ImageFont.load_default(size))
        except OSError:  # this machine does not have it
            continue
    return found


@cache
def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    return _drawn(font, character) != _drawn(font, _NO_CHARACTER)


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
