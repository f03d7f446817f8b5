"""The report as one HTML file that needs nothing else: no request leaves it, and no script runs in it."""

import base64
import hashlib
import re
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from query.evaluation.report.contents import Contents
from query.evaluation.report.drawing.palette import variables
from query.evaluation.report.pictures import Thumbnails

_CODE = re.compile(r"`([^`]+)`")


def page(contents: Contents) -> str:
    """The HTML of a report."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return _ENVIRONMENT.get_template("report.html").render(
        contents=contents, style=Markup(style), policy=policy, thumbnails=Thumbnails()
    )


def _style() -> str:
    text = (resources.files("query.evaluation.report") / "templates" / "style.css").read_text(encoding="utf-8")
    return text.replace("/* plot: light */", variables(dark=False)).replace("/* plot: dark */", variables(dark=True))


def _coded(text: str) -> Markup:
    """Text with what is between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


_ENVIRONMENT = Environment(
    loader=PackageLoader("query.evaluation.report"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"coded": _coded, "svg": Markup}
