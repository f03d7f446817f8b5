"""`clipsieve bench gpu`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from query.settings import BenchGpuSettings

SUMMARY = "measure everything that depends on a GPU, step by step"
EXAMPLES = (
    "  clipsieve bench gpu --json-file gpu.json --markdown-file gpu.md\n"
    "  clipsieve bench gpu --only towers,transfer --minutes 9 --json-file gpu.json --resume\n"
    "  clipsieve bench gpu --device cpu --quick"
)
SETTINGS = "query.settings:BenchGpuSettings"


def run(settings: "BenchGpuSettings") -> None:
    """Measure, with a line for each row as it comes; then show everything."""
    from pipeline.durable.atomic import write_text
    from query.bench.gpu.report import as_markdown, one_line
    from query.bench.gpu.runner import bench_gpu
    from query.cli.console import note, show

    results = bench_gpu(settings, lambda row: note(one_line(row)))
    table = as_markdown(results)
    write = (lambda: write_text(settings.markdown_file, table)) if settings.markdown_file else None
    show(settings, results, lambda: print(table), write)
