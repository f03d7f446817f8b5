"""The results of `clipsieve bench gpu` as a Markdown document: what ran where, then one table per step."""

from typing import Any

from query.bench.gpu.setup import OK, Row
from query.settings import BENCH_GPU_STEPS

_HIDDEN = {"step", "task", "name", "status", "reason", "at", "task_s", "model", "policy", "mode", "range", "sections"}
_HIDDEN |= {"kernels", "stage_s", "failures", "why_skipped", "sentence", "failed_images"}
_TITLES = {
    "images_per_second": "images/s",
    "queries_per_second": "queries/s",
    "peak_bytes": "peak MB",
    "memory_bytes": "memory MB",
    "tflops": "TFLOP/s",
    "gb_per_s": "GB/s",
    "measured": "speed-up",
    "ratio": "measured / theoretical",
    "gmacs": "GMACs",
}


def as_markdown(results: dict[str, Any]) -> str:
    """One heading, the machine, and a table per step with rows."""
    lines = ["# Benchmark of the GPU side", "", *_machine(results)]
    for step in BENCH_GPU_STEPS:
        rows = [row for row in results["rows"] if row["step"] == step]
        if rows:
            lines += ["", f"## {step}", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def one_line(row: Row) -> str:
    """A row as one line of progress."""
    facts = [f"{_title(key)} {_shown(key, value)}" for key, value in row.items() if key not in _HIDDEN]
    if row["status"] != OK:
        facts = [f"{row['status']}: {row.get('reason', '')}", *facts]
    return f"{row['step']}: {row['name']}: {', '.join(facts[:7])}"


def _machine(results: dict[str, Any]) -> list[str]:
    lines = []
    for run in results["runs"]:
        gpus = ", ".join(f"{gpu['name']} (driver {gpu.get('driver_version', 'unknown')})" for gpu in run["gpus"])
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version != "missing")
        missing = [name for name, version in run["versions"].items() if version == "missing"]
        quick = "; quick, so no number means anything" if run["quick"] else ""
        lines.append(f"- {run['date']}: `{run['command']}` on {run['device']}{quick}")
        lines.append(f"  - GPU: {gpus or 'none'}; CPU: {run['cpu']}, {run['cores']} cores; {run['system']}")
        lines.append(f"  - {versions}" + (f"; missing: {', '.join(missing)}" if missing else ""))
    return lines


def _table(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in _HIDDEN))
    columns = [key for key in columns if any(_is_plain(row.get(key)) for row in rows)]
    lines = ["| | " + " | ".join(_title(key) for key in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for row in rows:
        cells = [_shown(key, row.get(key)) for key in columns]
        name = row["name"]
        if row["status"] != OK:
            name += f" (**{row['status']}**: {row.get('reason', '')})"
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (name, *cells)) + " |")
    return lines


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _title(key: str) -> str:
    return _TITLES.get(key, key.replace("_", " "))


def _shown(key: str, value: Any) -> str:
    if not _is_plain(value):
        return ""
    if key.endswith("_bytes"):
        return f"{value / 1e6:,.0f}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
