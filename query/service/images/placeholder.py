"""The picture that stands for an image that cannot be shown, and says why. It suits light and dark pages."""

import io
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from query.pictures.lettering import font_for, one_line

MEDIA_TYPE = "image/webp"

_WIDTH, _HEIGHT = 320, 240
_TWICE = 2  # drawn at twice the size and reduced, which smooths its lines
_PAPER, _INK = (98, 102, 110), (242, 243, 245)  # a contrast of 5.3
_DIMMED = (150, 154, 162)
_ICON = (124, 48, 196, 104)
_LINE, _TEXT_TOP, _TEXT_SIZE, _MARGIN, _MOST_LINES = 20, 130, 14, 24, 4


@lru_cache(64)
def placeholder(reason: str, scale: int = 1) -> bytes:
    """A WebP that says a reason, 320 x 240 pixels times `scale`."""
    large = scale * _TWICE
    picture = Image.new("RGB", (large * _WIDTH, large * _HEIGHT), _PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_icon(draw, large)
    font = font_for(reason, large * _TEXT_SIZE)
    for number, line in enumerate(_wrapped(reason, font, large * (_WIDTH - 2 * _MARGIN))):
        middle = (large * _WIDTH / 2, large * (_TEXT_TOP + _LINE * number))
        draw.text(middle, line, fill=_INK, font=font, anchor="ma")
    file = io.BytesIO()
    picture.reduce(_TWICE).save(file, "WEBP", lossless=True)
    return file.getvalue()


def _draw_icon(draw: ImageDraw.ImageDraw, large: int) -> None:
    """A framed landscape, struck through."""
    left, top, right, bottom = (large * edge for edge in _ICON)
    width, height = right - left, bottom - top
    draw.rounded_rectangle((left, top, right, bottom), 6 * large, outline=_DIMMED, width=2 * large)
    draw.ellipse((left + width * 0.18, top + height * 0.2, left + width * 0.34, top + height * 0.4), fill=_DIMMED)
    hills = [(0.1, 0.84), (0.36, 0.5), (0.5, 0.66), (0.68, 0.38), (0.9, 0.84)]
    draw.polygon([(left + width * x, top + height * y) for x, y in hills], fill=_DIMMED)
    for colour, thickness in ((_PAPER, 7), (_INK, 2)):
        ends = (left - 4 * large, bottom + 4 * large, right + 4 * large, top - 4 * large)
        draw.line(ends, fill=colour, width=thickness * large)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """A text on a few lines, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES - 1 :] = [" ".join(lines[_MOST_LINES - 1 :])]
    return [one_line(line, font, width) for line in lines]
