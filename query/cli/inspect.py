"""`clipsieve inspect`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from query.settings import InspectSettings

SUMMARY = "show what a policy does to a model, block by block and patch by patch"
EXAMPLES = (
    "  clipsieve inspect --model ViT-B-16 --policy balanced\n"
    "  clipsieve inspect --model ViT-L-14-336 --gmac-ratio 2\n"
    "  clipsieve inspect --model local-dir:/models/clip --image photo.jpg --picture kept.png"
)
SETTINGS = "query.settings:InspectSettings"


def run(settings: "InspectSettings") -> None:
    """Break down what a policy costs, and report where the picture of the kept patches is."""
    from query.cli.console import note, show
    from query.inspect import inspect

    inspection, write = inspect(settings)

    def write_picture() -> None:
        write()
        note(f"kept patches: {settings.picture.absolute()}")

    show(settings, inspection, lambda: print_inspection(inspection), write_picture if write else None)


def print_inspection(inspection: dict[str, Any]) -> None:
    """Print what a policy costs: one row per block, and the total."""
    from query.cli.console import console, table

    height, width = inspection["image_size"]
    title = f"{inspection['model']} at {height} x {width}, policy {inspection['policy']['name']}"
    found = table(title, show_footer=True)
    totals = {
        "cut GMACs": f"{sum(block['cut_gmacs'] for block in inspection['blocks']):.3f}",
        "GMACs": f"{inspection['gmacs']:.3f}",
        "unpruned": f"{inspection['unpruned_gmacs']:.3f}",
        "ratio": f"{inspection['theoretical']:.2f}x",
    }
    for heading in ("block", "patches", "tokens", "cut GMACs", "GMACs", "unpruned", "ratio"):
        found.add_column(heading, totals.get(heading, "tower" if heading == "block" else ""), justify="right")
    before = inspection["grid"][0] * inspection["grid"][1]
    for block in inspection["blocks"]:
        found.add_row(
            str(block["block"]),
            str(block["patches"]),
            str(block["tokens"]),
            f"{block['cut_gmacs']:.4f}" if block["cut_gmacs"] else "",
            f"{block['gmacs']:.4f}",
            f"{block['unpruned_gmacs']:.4f}",
            f"{block['unpruned_gmacs'] / block['gmacs']:.2f}x",
            style="bold" if block["patches"] != before else None,
        )
        before = block["patches"]
    console().print(found)
