"""What tests of the page read from it, and do to it."""

from pathlib import Path

RED = "a large red circle"
LOST = "images/00007.jpg"
"""Its file is deleted after it was indexed. Its id is 7. Browsers rightly complain of it."""
ONLY_FIRST = "images/00038.jpg"
"""The second store does not have it."""


def keys(page, place="main"):
    """The keys of the hits that are shown, in order."""
    return page.locator(f"{place} .hit").evaluate_all("cards => cards.map((card) => card.dataset.key)")


def shown(page, view):
    """Wait until results of this kind are there and complete."""
    page.wait_for_selector(f"main[data-view={view}]:not([aria-busy])")


def search(page, text, view="search"):
    """Type a text and press Enter; wait for its answer."""
    page.fill("#text", text)
    with page.expect_response(lambda response: "fragment=1" in response.url):
        page.press("#text", "Enter")
    shown(page, view)


def focused(page, what="name"):
    """A property of the element that has the focus."""
    return page.evaluate(f"document.activeElement.{what}")


def transfer(page, kind, path, media_type="image/jpeg"):
    """Drop or paste a file, as browsers do: a real `DataTransfer` with a real file."""
    page.evaluate(
        """async ([kind, bytes, name, type]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], name, { type }));
            const target = document.querySelector("main");
            if (kind === "paste") {
                target.dispatchEvent(new ClipboardEvent("paste", { clipboardData: files, bubbles: true }));
                return;
            }
            for (const name of ["dragenter", "dragover", "drop"])
                target.dispatchEvent(new DragEvent(name, { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        [kind, list(Path(path).read_bytes()), Path(path).name, media_type],
    )


def width_of(image):
    """Width of an image in its own pixels, once it is loaded and decoded."""
    return image.evaluate("async (one) => { await one.decode(); return one.naturalWidth; }")
