"""Contact sheets: queries and their top hits as one picture, for people to look at."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.pixels.decode import open_rgb
from pipeline.source.access.failures import reason_to_read_later
from query.hits.hits import Hit
from query.pictures.lettering import font_for, lines_of, missing_in, one_line
from query.pictures.picture_file import write_picture

_COLUMNS = 6
_THUMB = 160
_GAP = 12
_LABEL = 34
_HEADING = 34
_INK = (28, 30, 36)
_FAINT = (110, 114, 124)
_RIGHT = (34, 139, 80)
_MISSING = (225, 226, 230)
_LINES_IN_A_TILE = 8


def write_sheet(
    path: Path, answers: Sequence[tuple[str, Sequence[Hit]]], right_keys: Sequence[str | None] | None = None
) -> list[str]:
    """Draw each query's text, then its hits, six per row, with score and key.

    Args:
        path: Picture to write, in the format of its suffix; PNG if it has none.
        answers: Queries with their hits; an image that cannot be opened becomes a grey tile that says why.
        right_keys: Key of the image that each query was written for; it is framed in green if found.

    Returns:
        Warnings: what could not be drawn.

    Raises:
        ConfigError: If the sheet is too large for the format.
        StoreError: If the file cannot be written.
    """
    line_height = _THUMB + _LABEL
    heights = [_HEADING + max(1, -(-len(hits) // _COLUMNS)) * line_height for _, hits in answers]
    width = _GAP + _COLUMNS * (_THUMB + _GAP)
    sheet = Image.new("RGB", (width, _GAP + sum(height + _GAP for height in heights)), "white")
    draw, label = ImageDraw.Draw(sheet), font_for("", 12)
    top, failed = _GAP, []
    for row, ((query, hits), height) in enumerate(zip(answers, heights, strict=True)):
        heading = font_for(query, 17)
        draw.text((_GAP, top + 4), one_line(query, heading, width - 2 * _GAP), fill=_INK, font=heading)
        for number, hit in enumerate(hits):
            left = _GAP + number % _COLUMNS * (_THUMB + _GAP)
            upper = top + _HEADING + number // _COLUMNS * line_height
            try:
                sheet.paste(ImageOps.fit(open_rgb(hit.uri), (_THUMB, _THUMB)), (left, upper))
            except Exception as error:  # moved or changed since it was indexed; still show the other hits
                reason = reason_to_read_later(error, hit.uri)
                failed.append(f"{hit.key!r} ({reason})")
                sheet.paste(_tile(reason, label), (left, upper))
            if right_keys and hit.key == right_keys[row]:
                draw.rectangle((left - 3, upper - 3, left + _THUMB + 2, upper + _THUMB + 2), outline=_RIGHT, width=4)
            bottom = upper + _THUMB + 3
            draw.text((left, bottom), f"{hit.rank}.  {hit.score:.3f}", fill=_INK, font=label)
            name = Path(hit.key).name
            font = font_for(name, 12)
            draw.text((left, bottom + 15), one_line(name, font, _THUMB), fill=_FAINT, font=font)
        top += height + _GAP
    write_picture(path, sheet)
    return _warnings([query for query, _ in answers], failed, sum(len(hits) for _, hits in answers))


def _tile(reason: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    tile = Image.new("RGB", (_THUMB, _THUMB), _MISSING)
    lines = ["cannot be shown:", *lines_of(reason, font, _THUMB - _GAP, _LINES_IN_A_TILE)]
    ImageDraw.Draw(tile).multiline_text((_GAP / 2, _GAP / 2), "\n".join(lines), fill=_INK, font=font)
    return tile


def _warnings(queries: Sequence[str], failed: Sequence[str], num_hits: int) -> list[str]:
    warnings = []
    if failed:
        warnings.append(f"{len(failed)} of {num_hits} images cannot be shown on the sheet, first {failed[0]}")
    undrawn = sorted(set().union(*(missing_in(font_for(query, 17), query) for query in queries)))
    if undrawn:
        warnings.append(
            f"no font on this machine has the characters {''.join(undrawn[:20])}; they are question marks on the "
            "sheet: install a font that has them, such as Noto Sans"
        )
    return warnings
