"""`clipsieve demo`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from query.settings import DemoSettings

SUMMARY = "run the whole chain on drawn scenes with the built-in model, without a network"
EXAMPLES = "  clipsieve demo\n  clipsieve demo --out /tmp/demo --keep-ratio 0.5 --json-file results.json"
SETTINGS = "query.settings:DemoSettings"


def run(settings: "DemoSettings") -> None:
    """Run the demo, and show one query with its hits, recall and speed, and the path of the contact sheet."""
    from query.cli.console import Lines, note, show
    from query.cli.evaluate import print_results
    from query.cli.search import print_hits
    from query.demo import run_demo

    with Lines("demo") as lines:
        demo = run_demo(settings, lines)

    def print_demo() -> None:
        print_hits(*demo.answers[0])
        print_results(demo.results)

    def write_sheet() -> None:
        for warning in demo.write_sheet():
            note(f"warning: {warning}")
        note(f"contact sheet of {len(demo.answers)} queries: {demo.sheet.absolute()}")

    show(settings, demo.results, print_demo, write_sheet)
