"""Contact sheets: queries and their top hits as one picture, for people to look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from query.hits.hit import Hit
from query.hits.hits import Hits
from query.hits.notes import WEAK_BELOW, num_strong
from query.hits.thumbnail import open_or_say_why
from query.pictures.lettering import font_for, lines_of, missing_in, one_line
from query.pictures.picture_file import write_picture

_COLUMNS = 6
_THUMB = 160
_GAP = 12
_LABEL = 34
_HEADING = 34
_NOTE = 20
_INK = (28, 30, 36)
_FAINT = (110, 114, 124)
_RIGHT = (34, 139, 80)
_MISSING = (225, 226, 230)
_LINES_IN_A_TILE = 8


def write_sheet(
    path: Path, answers: Sequence[tuple[str, Hits]], right_keys: Sequence[str | None] | None = None
) -> list[str]:
    """Draw each query's text and notes, then its hits, six per row, with score, relevance and key.

    Weak matches follow below a line, in rows of their own.

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
    blocks = [block for number, answer in enumerate(answers) for block in _blocks(number, *answer)]
    width = _GAP + _COLUMNS * (_THUMB + _GAP)
    sheet = Image.new("RGB", (width, _GAP + sum(block.height for block in blocks)), "white")
    draw, failed = ImageDraw.Draw(sheet), list[str]()
    top = _GAP
    for block in blocks:
        if isinstance(block, _Line):
            _draw_line(draw, block, top, width)
        else:
            for column, hit in enumerate(block.hits):
                place = (_GAP + column * (_THUMB + _GAP), top)
                is_right = right_keys is not None and hit.key == right_keys[block.query]
                reason = _draw_hit(sheet, draw, hit, place, is_right)
                failed += [f"{hit.key!r} ({reason})"] if reason else []
        top += block.height
    write_picture(path, sheet)
    titles = [title for title, _ in answers]
    return _warnings(titles, failed, sum(len(hits) for _, hits in answers))


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of text across the sheet."""

    text: str
    height: int
    size: int = 12
    colour: tuple[int, int, int] = _FAINT
    has_rule: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """Up to `_COLUMNS` hits of a query beside each other."""

    query: int
    hits: Sequence[Hit]
    height: int = _THUMB + _LABEL


def _blocks(query: int, title: str, hits: Hits) -> Iterator[_Line | _Row]:
    """What is drawn for a query, from top to bottom."""
    yield _Line(title, _HEADING, size=17, colour=_INK)
    for note in hits.notes:
        yield _Line(note, _NOTE)
    strong = num_strong(hits)
    for part, is_weak in ((hits[:strong], False), (hits[strong:], True)):
        if part and is_weak and strong:
            yield _Line(WEAK_BELOW, _NOTE + _GAP, has_rule=True)
        for start in range(0, len(part), _COLUMNS):
            yield _Row(query, part[start : start + _COLUMNS])
    yield _Line("", _GAP if len(hits) else _GAP + _THUMB + _LABEL)


def _draw_line(draw: ImageDraw.ImageDraw, line: _Line, top: int, width: int) -> None:
    if line.has_rule:
        draw.line((_GAP, top + 6, width - _GAP, top + 6), fill=_FAINT)
        top += 8
    font = font_for(line.text, line.size)
    draw.text((_GAP, top + 4), one_line(line.text, font, width - 2 * _GAP), fill=line.colour, font=font)


def _draw_hit(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, hit: Hit, place: tuple[int, int], is_right: bool
) -> str | None:
    """Draw a hit's image and its two lines of text. Returns why the image cannot be shown, or None."""
    label, (left, upper) = font_for("", 12), place
    image = open_or_say_why(hit.uri)
    tile = _tile(image, label) if isinstance(image, str) else ImageOps.fit(image, (_THUMB, _THUMB))
    sheet.paste(tile, place)
    if is_right:
        draw.rectangle((left - 3, upper - 3, left + _THUMB + 2, upper + _THUMB + 2), outline=_RIGHT, width=4)
    bottom = upper + _THUMB + 3
    relevance = "" if hit.relevance is None else f"   relevance {hit.relevance:.2f}"
    draw.text((left, bottom), f"{hit.rank}.  {hit.score:.3f}{relevance}", fill=_INK, font=label)
    name = Path(hit.key).name
    font = font_for(name, 12)
    draw.text((left, bottom + 15), one_line(name, font, _THUMB), fill=_FAINT, font=font)
    return image if isinstance(image, str) else None


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
