"""Step `tests`: the tests marked `gpu`, which CI skips where there is none."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from query.bench.gpu.setup import NotAvailable, Row, Setup, Task

_ROOT = Path(__file__).resolve().parents[4]


def tasks(setup: Setup) -> Iterator[Task]:
    """One task per file of tests."""
    folder = _ROOT / "tests"
    files = sorted(path for path in folder.rglob("test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8"))
    if not files:
        yield Task("tests", 0, _no_tests)
    for path in files[: setup.scaled(len(files), 1)]:
        yield Task(path.relative_to(folder).as_posix(), 40, lambda p=path: [_run(setup, p)])


def _no_tests() -> list[Row]:
    raise NotAvailable("the tests are not part of the installed package; run from a checkout")


def _run(setup: Setup, path: Path) -> Row:
    importlib.import_module("pytest")  # if it is missing, say so
    report = setup.folder / "tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", str(path), "-m", "gpu", "-q", f"--junitxml={report}"]
    # other versions of the libraries may warn
    command += ["-p", "no:cacheprovider", "-o", "filterwarnings=default", "-W", "default"]
    run = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300)
    if not report.exists():
        raise RuntimeError(f"pytest ended with exit code {run.returncode}: {(run.stdout + run.stderr)[-2000:]}")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    row: Row = {
        "name": path.name,
        "passed": len(cases) - len(bad) - len(skipped),
        "failed": len(bad),
        "skipped": len(skipped),
        "why_skipped": sorted({case.find("skipped").get("message", "") for case in skipped}),
        "failures": {case.get("name"): _text_of(case) for case in bad},
    }
    if bad or (setup.device == "cuda" and not row["passed"]):
        row |= {"status": "failed", "reason": f"{len(bad)} of {len(cases)} tests failed: {', '.join(row['failures'])}"}
    return row


def _text_of(case: ElementTree.Element) -> str:
    problem = case.find("failure") if case.find("failure") is not None else case.find("error")
    return (problem.text or "")[-3000:]
