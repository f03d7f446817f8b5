"""`clipsieve demo`."""

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from query.settings import DemoSettings

SUMMARY = "run the whole chain on drawn scenes with the built-in model, without a network"
EXAMPLES = (
    "  clipsieve demo\n"
    "  clipsieve demo --serve\n"
    "  clipsieve demo --out /tmp/demo --keep-ratio 0.5 --json-file results.json"
)
SETTINGS = "query.settings:DemoSettings"


def run(settings: "DemoSettings") -> None:
    """Run the demo, and show one query with its hits, recall and speed, and the path of the contact sheet."""
    from contextlib import nullcontext

    from query.cli.console import Lines, note, show
    from query.cli.evaluate import print_results
    from query.cli.search import print_hits
    from query.cli.serve import refuse_missing_extra
    from query.demo import run_demo

    if settings.serve:
        refuse_missing_extra()
        from query.service.run import listen, serve
        from query.service.settings import ServeSettings

    # the port is taken before the demo, which takes minutes
    with listen("127.0.0.1", settings.port) if settings.serve else nullcontext() as listener:
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
        first, *others = demo.stores
        store2 = others[-1] if others else None
        note(f"to search it in a browser: clipsieve serve {shlex.join(map(str, (first, *others[-1:])))}")
        if settings.serve:
            serve(ServeSettings(store=first, store2=store2, port=settings.port, device=demo.device), listener)
