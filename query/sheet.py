"""Contact sheets: queries and their top hits as one PNG, for people to look at. Home of Pillow in `query`."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.atomic import write_atomically
from pipeline.decode import path_of, to_rgb
from query.search import Hit

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
    """Draw one row a query: its words, then its hits with score and key.

    Args:
        path: PNG to write.
        answers: Queries with their hits; images that cannot be opened become grey squares.
        right_keys: Key of the image each query was written for, framed in green where it is found.

    Raises:
        StoreError: If the file cannot be written.
    """
    columns = max((len(hits) for _, hits in answers), default=1) or 1
    row_height = _HEADING + _THUMB + _LABEL
    width = max(_GAP + columns * (_THUMB + _GAP), 480)
    sheet = Image.new("RGB", (width, _GAP + len(answers) * (row_height + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    heading, label = ImageFont.load_default(17), ImageFont.load_default(12)
    for row, (query, hits) in enumerate(answers):
        top = _GAP + row * (row_height + _GAP)
        draw.text((_GAP, top + 4), _fitted(query, draw, heading, width - 2 * _GAP), fill=_INK, font=heading)
        for column, hit in enumerate(hits):
            left = _GAP + column * (_THUMB + _GAP)
            sheet.paste(_thumbnail(hit), (left, top + _HEADING))
            if right_keys and hit.key == right_keys[row]:
                box = (left - 3, top + _HEADING - 3, left + _THUMB + 2, top + _HEADING + _THUMB + 2)
                draw.rectangle(box, outline=_RIGHT, width=4)
            caption = _fitted(Path(hit.key).name, draw, label, _THUMB)
            bottom = top + _HEADING + _THUMB + 3
            draw.text((left, bottom), f"{hit.rank}.  {hit.score:.3f}", fill=_INK, font=label)
            draw.text((left, bottom + 15), caption, fill=_FAINT, font=label)
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG"))


def _thumbnail(hit: Hit) -> Image.Image:
    try:
        with open(path_of(hit.uri), "rb") as file:
            return ImageOps.fit(to_rgb(Image.open(io.BytesIO(file.read()))), (_THUMB, _THUMB))
    except (OSError, ValueError):  # moved or changed since it was indexed
        return Image.new("RGB", (_THUMB, _THUMB), _MISSING)


def _fitted(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, width: float) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
