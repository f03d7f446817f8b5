"""`clipsieve bench gpu`: every step runs, each on its own, and nothing that was measured is lost."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from query.bench.gpu import runner
from query.bench.gpu.report import as_markdown
from query.cli.main import main
from query.settings import BENCH_GPU_STEPS, BenchGpuSettings

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["bench", "gpu", "--device", "cpu", "--quick"]


def by_step(path):
    rows = {}
    for row in json.loads(path.read_text())["rows"]:
        rows.setdefault(row["step"], []).append(row)
    return rows


def send_rows(connection, setup, steps, finished, deadline):
    """Stands in for the worker: two tasks a step, of which the second one of `towers` crashes the process."""
    for step in steps:
        for task in ("first", "second"):
            if (step, task) in finished:
                continue
            connection.send(("started", step, task))
            if (step, task) == ("towers", "second"):
                os._exit(7)
            connection.send(("rows", step, task, [{"name": task, "status": "ok", "process": os.getpid()}]))
    connection.send(("done",))


def hang(connection, setup, steps, finished, deadline):
    connection.send(("started", steps[0], "endless"))
    time.sleep(600)


def end_at_once(connection, setup, steps, finished, deadline):
    os._exit(5)


@pytest.mark.ray
def test_every_step_runs_on_a_cpu(tmp_path, capsys):
    json_file, markdown = tmp_path / "gpu.json", tmp_path / "gpu.md"
    assert main([*QUICK, "--json-file", str(json_file), "--markdown-file", str(markdown)]) == 0
    rows = by_step(json_file)
    assert tuple(rows) == BENCH_GPU_STEPS
    found = [row for step in rows.values() for row in step]
    assert not [row for row in found if row["status"] in ("failed", "not installed")]
    assert {row["reason"] for row in found if row["status"] == "not run"} == {"this run is on the CPU"}
    towers = {(row["model"], row["policy"], row["mode"]): row for row in rows["towers"] if row["status"] == "ok"}
    assert len({model for model, _, _ in towers}) == 6
    assert {policy for _, policy, _ in towers} == {"open_clip", "none", "lossless", "balanced", "fast", "lean"}
    for (_, policy, _), row in towers.items():
        assert row["images_per_second"] > 0
        assert row["ratio"] == pytest.approx(row["measured"] / row["theoretical"])
        assert (row["theoretical"] > 1.35) == (policy in ("balanced", "fast", "lean"))
    embedded = [row for row in rows["end-to-end"] if row["name"].startswith("embed")]
    assert embedded
    assert all(row["images"] == 64 and not row["failed_images"] for row in embedded)
    assert all(row["num_halvings"] > 0 and row["minimum_cosine"] > 0.999 for row in rows["memory"])
    text = markdown.read_text()
    assert text == capsys.readouterr().out.removesuffix("\n")
    assert all(f"## {step}\n" in text for step in BENCH_GPU_STEPS)


def test_towers_need_neither_ray_nor_faiss_nor_pyarrow_and_other_steps_say_what_is_missing(tmp_path):
    for name in ("ray", "faiss", "pyarrow"):
        (tmp_path / "missing" / name).mkdir(parents=True)
        program = f"raise ModuleNotFoundError('No module named {name}', name={name!r})"
        (tmp_path / "missing" / name / "__init__.py").write_text(program)
    path = tmp_path / "gpu.json"
    steps = "memory,kernels,transfer,faiss,end-to-end"
    command = [sys.executable, "-m", "query.cli", *QUICK, "--only", steps, "--json-file", str(path)]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'missing'}{os.pathsep}{ROOT}"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    rows = by_step(path)
    for step in ("memory", "kernels", "transfer"):
        assert {row["status"] for row in rows[step]} == {"ok"}, rows[step]
    assert [(row["status"], row["reason"]) for row in rows["faiss"]] == [
        ("not installed", "package faiss is not installed")
    ]
    embedded = [row for row in rows["end-to-end"] if row["name"].startswith("embed")]
    others = [row for row in rows["end-to-end"] if row not in embedded]
    assert {row["status"] for row in embedded} == {"not installed"}
    assert {row["status"] for row in others} == {"ok"}
    assert others[0]["images_per_second"] > 0


def test_what_does_not_fit_into_the_time_is_run_when_resumed(tmp_path, capsys):
    path = tmp_path / "gpu.json"
    argv = [*QUICK, "--only", "doctor", "--json-file", str(path), "--resume"]
    assert main([*argv, "--minutes", "0.6"]) == 0
    before = by_step(path)["doctor"]
    late = [row for row in before if row["status"] == "not run"]
    assert late[-1]["name"] == "clipsieve doctor"
    assert late[-1]["reason"].startswith("it takes about 40 s, and ")
    assert main(argv) == 0
    after = by_step(path)["doctor"]
    assert {row["status"] for row in after} == {"ok"}
    assert [row for row in before if row["status"] == "ok"] == after[: -len(late)]  # measured once
    assert len(json.loads(path.read_text())["runs"]) == 2


def test_a_crash_costs_one_task(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "work", send_rows)
    path = tmp_path / "gpu.json"
    seen = []
    settings = BenchGpuSettings(only="doctor,towers,faiss", device="cpu", json_file=path)
    results = runner.bench_gpu(settings, seen.append)
    assert json.loads(path.read_text()) == results
    assert seen == results["rows"]
    assert [(row["step"], row["task"], row["status"]) for row in seen] == [
        ("doctor", "first", "ok"),
        ("doctor", "second", "ok"),
        ("towers", "first", "ok"),
        ("towers", "second", "failed"),
        ("faiss", "first", "ok"),
        ("faiss", "second", "ok"),
    ]
    assert seen[3]["reason"] == "its process ended with exit code 7"
    assert seen[4]["process"] != seen[0]["process"]
    assert "**failed**: its process ended with exit code 7" in as_markdown(results)


def test_a_task_that_hangs_is_ended_after_the_time_limit(monkeypatch):
    monkeypatch.setattr(runner, "work", hang)
    monkeypatch.setattr(runner, "_GRACE_S", 1.0)
    started = time.monotonic()
    rows = runner.bench_gpu(BenchGpuSettings(only="faiss,tests", device="cpu", minutes=0.2))["rows"]
    assert next((row["task"], row["status"], row["reason"]) for row in rows if row["step"] == "faiss") == (
        ("endless", "failed", "it did not end within 1 s of the time limit")
    )
    assert [(row["status"], row["reason"]) for row in rows if row["step"] == "tests"] == [
        ("not run", "no time was left")
    ]
    assert time.monotonic() - started < 300


def test_a_process_that_cannot_start_fails_each_step_once(monkeypatch):
    monkeypatch.setattr(runner, "work", end_at_once)
    rows = runner.bench_gpu(BenchGpuSettings(only="doctor,faiss", device="cpu"))["rows"]
    assert [(row["step"], row["reason"]) for row in rows] == [
        (step, "its process ended with exit code 5") for step in ("doctor", "faiss")
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "towers,speed"], "only = 'towers,speed': expected steps among doctor, decoders"),
        (["--resume"], "also give --json-file"),
        (["--minutes", "0"], "minutes = '0'"),
    ],
)
def test_wrong_settings_are_errors(capsys, argv, message):
    assert main([*QUICK, *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_benchmark_is_not_resumed(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text('{"rows": 3}')
    assert main([*QUICK, "--resume", "--json-file", str(path)]) == 3
    assert f"cannot resume from {path}" in capsys.readouterr().err
    assert path.read_text() == '{"rows": 3}'
