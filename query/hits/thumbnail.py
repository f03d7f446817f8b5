"""The images of hits, opened again to be shown."""

from PIL import Image

from pipeline.pixels.decode import open_rgb
from pipeline.source.access.failures import reason_to_read_later


def open_or_say_why(uri: str) -> Image.Image | str:
    """An image as upright RGB, or why it cannot be shown: it may have moved or changed since it was indexed."""
    try:
        return open_rgb(uri)
    except Exception as error:  # reading and Pillow raise many types; the other hits are still shown
        return reason_to_read_later(error, uri)
