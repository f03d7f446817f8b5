"""Contact sheets: queries and their top hits as one PNG, for people to look at."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.durable.atomic import write_atomically
from pipeline.pixels.decode import open_rgb
from query.searcher import Hit

_COLUMNS = 6
_THUMB = 160
_GAP = 12
_LABEL = 34
_HEADING = 34
_INK = (28, 30, 36)
_FAINT = (110, 114, 124)
_RIGHT = (34, 139, 80)
_MISSING = (225, 226, 230)


def write_sheet(
    path: Path, answers: Sequence[tuple[str, Sequence[Hit]]], right_keys: Sequence[str | None] | None = None
) -> None:
    """Draw each query's text, then its hits, six per row, with score and key.

    Args:
        path: PNG to write.
        answers: Queries with their hits; images that cannot be opened become grey squares.
        right_keys: Key of the image that each query was written for; it is framed in green if found.

    Raises:
        StoreError: If the file cannot be written.
    """
    line_height = _THUMB + _LABEL
    heights = [_HEADING + max(1, -(-len(hits) // _COLUMNS)) * line_height for _, hits in answers]
    width = _GAP + _COLUMNS * (_THUMB + _GAP)
    sheet = Image.new("RGB", (width, _GAP + sum(height + _GAP for height in heights)), "white")
    draw = ImageDraw.Draw(sheet)
    heading, label = ImageFont.load_default(17), ImageFont.load_default(12)
    top = _GAP
    for row, ((query, hits), height) in enumerate(zip(answers, heights, strict=True)):
        draw.text((_GAP, top + 4), _fitted(query, draw, heading, width - 2 * _GAP), fill=_INK, font=heading)
        for number, hit in enumerate(hits):
            left = _GAP + number % _COLUMNS * (_THUMB + _GAP)
            upper = top + _HEADING + number // _COLUMNS * line_height
            sheet.paste(_thumbnail(hit), (left, upper))
            if right_keys and hit.key == right_keys[row]:
                draw.rectangle((left - 3, upper - 3, left + _THUMB + 2, upper + _THUMB + 2), outline=_RIGHT, width=4)
            bottom = upper + _THUMB + 3
            draw.text((left, bottom), f"{hit.rank}.  {hit.score:.3f}", fill=_INK, font=label)
            draw.text((left, bottom + 15), _fitted(Path(hit.key).name, draw, label, _THUMB), fill=_FAINT, font=label)
        top += height + _GAP
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG"))


def _thumbnail(hit: Hit) -> Image.Image:
    try:
        return ImageOps.fit(open_rgb(hit.uri), (_THUMB, _THUMB))
    except Exception:  # moved or changed since it was indexed; still show the other hits
        return Image.new("RGB", (_THUMB, _THUMB), _MISSING)


def _fitted(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, width: float) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
