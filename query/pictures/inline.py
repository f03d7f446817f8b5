"""A plot as SVG inside a page: its colours become those of the page, so that it follows light and dark."""

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_OF_THE_PAGE = {"font-family"}


def inline_svg(
    figure: "Figure", name: str, title: str, colours: Mapping[str, str], tips: Mapping[str, str] | None = None
) -> str:
    """Turn a figure into an `svg` element for HTML.

    It has no `style` attribute, which a content policy would refuse, and takes the font of the page.

    Args:
        figure: Drawn with the settings of `drawing_settings`, so that its text stays text.
        name: Unique on the page; ids inside start with it.
        title: What it shows, for those who cannot see it.
        colours: Name of a CSS variable, without its dashes, for each colour `#rrggbb` that the figure uses.
        tips: What the pointer shows over an artist, by its gid.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    targets = {node.get(_LINK, "").removeprefix("#") for node in root.iter()}
    targets |= set(re.findall(r"url\(#([^)]+)\)", file.getvalue()))
    for node in root.iter():
        _clean(node, name, colours, targets, tips or {})
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(
    node: ElementTree.Element, name: str, colours: Mapping[str, str], targets: set[str], tips: Mapping[str, str]
) -> None:
    node.tag = node.tag.removeprefix(_SVG)
    for declaration in node.attrib.pop("style", "").split("; "):
        key, _, value = declaration.partition(": ")
        if key and key not in _OF_THE_PAGE:
            variable = colours.get(value.lower())
            node.set(key, f"var(--{variable})" if variable else value)
    if link := node.attrib.pop(_LINK, None):
        node.set("href", f"#{name}-{link.removeprefix('#')}")
    if clip := node.get("clip-path"):
        node.set("clip-path", clip.replace("url(#", f"url(#{name}-"))
    own = node.attrib.pop("id", None)
    if own in targets:
        node.set("id", f"{name}-{own}")
    if own in tips:
        tip = ElementTree.Element("title")
        tip.text = tips[own]
        node.insert(0, tip)
    if path := node.get("d"):
        node.set("d", " ".join(_shorter(path).split()))
    for axis in ("x", "y"):
        if axis in node.attrib:
            node.set(axis, _shorter(node.attrib[axis]))


def _shorter(numbers: str) -> str:
    """Two decimals are a hundredth of a point."""
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), numbers)
