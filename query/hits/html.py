"""Hits as HTML for notebooks: thumbnails with rank, score, relevance, key and caption. No scripts.

Colours are those of the text around, more or less transparent, so that light and dark themes both work: a notebook's
theme need not be that of the system.
"""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from pipeline.errors import on_one_line
from query.hits.hit import Hit, Timings
from query.hits.notes import WEAK_BELOW, num_strong
from query.hits.thumbnail import open_or_say_why

MOST_SHOWN = 50
_SIDE = 160
_LONGEST_TEXT = 200

_STYLE = f"""
.clipsieve-hits {{ font: 13px/1.4 system-ui, sans-serif; color: inherit; }}
.clipsieve-hits p {{ margin: 4px 0; }}
.clipsieve-hits .title {{ font-size: 15px; font-weight: 600; }}
.clipsieve-hits .faint {{ opacity: .72; }}
.clipsieve-hits .grid {{ display: flex; flex-wrap: wrap; gap: 12px; margin: 8px 0; }}
.clipsieve-hits figure {{ margin: 0; width: {_SIDE}px; }}
.clipsieve-hits .picture {{ display: flex; align-items: center; justify-content: center; box-sizing: border-box;
  width: {_SIDE}px; height: {_SIDE}px; overflow: hidden; border-radius: 4px; background: rgba(128, 128, 128, .18); }}
.clipsieve-hits .picture img {{ margin: 0; max-width: none; }}
.clipsieve-hits .reason {{ padding: 8px; overflow-wrap: anywhere; }}
.clipsieve-hits figcaption {{ margin-top: 3px; font-size: 12px; overflow-wrap: anywhere; text-align: left; }}
.clipsieve-hits .caption {{ display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3;
  overflow: hidden; }}
.clipsieve-hits .weak {{ border-top: 1px dashed currentColor; padding-top: 4px; margin-top: 12px; }}
"""


def gallery(title: str, hits: Sequence[Hit], notes: Sequence[str], warnings: Sequence[str], timings: Timings) -> str:
    """A title, what there is to know, the hits in rows, a line above the weak ones, and what the search took.

    Args:
        title: What was asked.
        hits: The answers; `MOST_SHOWN` of them are shown.
        notes: See `query.hits.notes`.
        warnings: What a user should know about the query and the index.
        timings: What the search took.
    """
    shown, strong = hits[:MOST_SHOWN], num_strong(hits)
    parts = [f"<style>{_STYLE}</style>", f'<p class="title">{_text(title)}</p>']
    parts += [f'<p role="alert">Warning: {_text(warning)}</p>' for warning in warnings]
    parts += [f"<p>{_text(note)}</p>" for note in notes]
    parts.append(_grid(shown[:strong]))
    if strong < len(shown):
        parts.append(f'<p class="weak faint">{WEAK_BELOW}</p>' if strong else "")
        parts.append(_grid(shown[strong:]))
    if len(hits) > len(shown):
        parts.append(f"<p>{len(hits) - len(shown)} more hits are not shown; slice the hits, or use to_pandas()</p>")
    parts.append(f'<p class="faint">{timings.total:.1f} ms: {timings.stages}</p>')
    return f'<div class="clipsieve-hits">{"".join(parts)}</div>'


def _grid(hits: Sequence[Hit]) -> str:
    return f'<div class="grid">{"".join(map(_figure, hits))}</div>' if hits else ""


def _figure(hit: Hit) -> str:
    relevance = "" if hit.relevance is None else f" &middot; relevance {hit.relevance:.2f}"
    alike = f" (+{hit.duplicates} near-duplicate{'s' if hit.duplicates > 1 else ''})" if hit.duplicates else ""
    caption = f'<div class="caption">{_text(hit.caption)}</div>' if hit.caption else ""
    return (
        f'<figure><div class="picture">{_picture(hit)}</div><figcaption>'
        f'<div>{hit.rank}. <span title="score">{hit.score:.3f}</span>{relevance}</div>'
        f'<div class="faint">{_text(hit.key)}{alike}</div>{caption}</figcaption></figure>'
    )


def _picture(hit: Hit) -> str:
    image = open_or_say_why(hit.uri)
    if isinstance(image, str):
        return f'<div class="reason">cannot be shown: {_text(image)}</div>'
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{image.width}" height="{image.height}" '
        f'alt="{_text(hit.caption or hit.key)}">'
    )


def _text(text: str) -> str:
    """A text on one line, of bounded length, that cannot be taken for markup."""
    text = on_one_line(" ".join(text.split()))
    return escape(text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "...")
