"""Schemathesis sends what the OpenAPI document allows, and what it forbids, and compares the answers with it.

It needs other versions of some packages than we do, so it runs from an environment of its own.
"""

import os
import subprocess
from pathlib import Path

from tests.kit.wanted import skip_or_fail

PROGRAM = "CLIPSIEVE_SCHEMATHESIS"
"""Names the variable with the path of its program `st`."""
EXAMPLES = 30
"""For each operation. A limit of time would try other requests on a faster machine."""
MOST_S = 90


def test_the_service_is_as_its_openapi_document_says(service, tmp_path):
    program = os.environ.get(PROGRAM)
    if not program:
        skip_or_fail(f"schemathesis is not installed; set {PROGRAM} to its program `st`")
    settings = Path(__file__).with_name("schemathesis.toml")
    command = [program, "--no-color", "--config-file", str(settings), "run", f"{service.url}/openapi.json"]
    command += [
        "--checks",
        "all",
        "--seed",
        "1",
        "--max-examples",
        str(EXAMPLES),
        "--no-shrink",
        "--request-timeout",
        "30",
    ]
    # its own environment, and nothing of ours
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=MOST_S)
    shown = "\n".join(line[:300] for line in (run.stdout + run.stderr).splitlines() if line.strip())
    assert run.returncode == 0, shown[-20_000:]
    assert "generated" in run.stdout, shown
    assert "Traceback" not in service.log.read_text()
