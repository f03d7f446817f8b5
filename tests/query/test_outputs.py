"""Files and folders that a verb writes: checked before its work, and written one by one after it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import StoreError
from query.cli import main as command_line
from query.cli.console import show
from query.cli.main import main
from query.cli.verbs import VERBS, settings_class

ROOT = Path(__file__).resolve().parents[2]

# what the verb reads, or checks itself before its work
READ = {
    *("config", "store", "keys", "images", "captions", "grid", "data", "image", "queries", "vectors", "store2"),
    "embed.calibration",
    "sweep.baseline",
    "import.source",
    "adapt.out",
    "demo.out",
}


@pytest.fixture
def no_work(monkeypatch):
    """Fails if a verb begins with its work."""

    def begin(*_):
        pytest.fail("the work began")

    monkeypatch.setattr(command_line, "module_of", lambda verb: SimpleNamespace(EXAMPLES="", run=begin))


@pytest.mark.parametrize("verb", VERBS)
def test_every_path_is_known_as_an_output_or_as_something_to_read(verb):
    model = settings_class(verb)
    declared = set().union(*(vars(kind).get("OUTPUTS", {}) for kind in model.__mro__))
    for name, field in model.model_fields.items():
        if "Path" in str(field.annotation):
            assert (name in declared) != (name in READ or f"{verb}.{name}" in READ), name
    assert declared <= set(model.model_fields)


MEASURE = ["--images", "x", "--captions", "x"]
OUTPUTS = [
    (["search", "store", "a cat"], "--json-file", "r.json"),
    (["search", "store", "a cat"], "--sheet", "s.png"),
    (["search", "store", "--vectors", "x.parquet"], "--out", "hits.parquet"),
    (["index", "store"], "--plot", "recall.svg"),
    (["evaluate", *MEASURE], "--json-file", "r.json"),
    (["evaluate", *MEASURE], "--out", "stores"),
    (["bench", "model"], "--json-file", "r.json"),
    (["sweep", "grid.yaml"], "--out", "sweep"),
    (["bench", "gpu"], "--markdown-file", "gpu.md"),
    (["inspect", "--image", "x.jpg"], "--picture", "p.png"),
    (["embed", "photos"], "--out", "store"),
    (["import", "vectors.npy", "--model", "x"], "--out", "store"),
    (["adapt", "--from", "x"], "--export", "model"),
    (["verify", "store"], "--json-file", "r.json"),
    (["doctor"], "--json-file", "r.json"),
]


@pytest.mark.parametrize(("argv", "flag", "name"), OUTPUTS)
def test_an_output_that_cannot_be_written_is_found_before_the_work(argv, flag, name, tmp_path, no_work, capsys):
    (tmp_path / "file").write_text("")
    for place in ("/proc/no-such", f"{tmp_path}/file"):  # where even root cannot write
        assert main([*argv, flag, f"{place}/{name}"]) == 4
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"error: cannot write {flag} {place}/{name}: ")
        assert f"choose another {flag}" in captured.err
        assert captured.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_output_in_a_missing_folder(tmp_path, no_work, capsys):
    assert main(["doctor", "--json-file", f"{tmp_path}/nowhere/r.json"]) == 4
    assert "its folder does not exist; create it, or choose another --json-file" in capsys.readouterr().err


@pytest.mark.parametrize(("path", "found"), [("/dev/null", "not a regular file"), ("{here}", "a folder")])
def test_a_file_does_not_replace_something_else(path, found, tmp_path, no_work, capsys):
    assert main(["doctor", "--json-file", path.format(here=tmp_path)]) == 4
    assert f"it is {found}; choose another --json-file" in capsys.readouterr().err
    assert Path("/dev/null").is_char_device()


def test_a_file_may_be_in_the_folder_that_the_run_makes(tmp_path, monkeypatch, capsys):
    began = []
    monkeypatch.setattr(command_line, "module_of", lambda verb: SimpleNamespace(EXAMPLES="", run=began.append))
    out = tmp_path / "out"
    assert main(["embed", "photos", "--out", str(out), "--json-file", str(out / "r.json")]) == 0
    assert len(began) == 1
    assert main(["embed", "photos", "--out", str(out), "--json-file", str(out / "deeper" / "r.json")]) == 4
    assert "--json-file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long(tmp_path, no_work, capsys):
    assert main(["doctor", "--json-file", f"{tmp_path}/{'x' * 300}"]) == 4
    assert "File name too long; choose another --json-file" in capsys.readouterr().err


def test_two_outputs_cannot_be_one_file(tmp_path, no_work, capsys):
    argv = ["search", "store", "a cat", "--sheet", f"{tmp_path}/r.png", "--json-file", f"{tmp_path}/r.png"]
    assert main(argv) == 2
    assert "--json-file and --sheet are both" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (["search", "store", "a cat"], "--sheet"),
        (["inspect"], "--picture"),
    ],
)
def test_a_format_that_cannot_be_written(argv, flag, tmp_path, no_work, capsys):
    assert main([*argv, flag, f"{tmp_path}/picture.psd"]) == 2
    assert "expected a name that ends in one of .png .jpg .jpeg .webp" in capsys.readouterr().err


def test_the_picture_of_inspect_counts_only_with_an_image(tiny_model, capsys):
    argv = ["inspect", "--model", tiny_model, "--picture", "/proc/no-such/kept.png", "--json"]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["blocks"]


# --- after the work


def failing(reason):
    def fail():
        raise StoreError(reason)

    return fail


def test_if_one_output_fails_the_others_are_still_written(tmp_path, capsys):
    settings, written = SimpleNamespace(as_json=False, json_file=tmp_path / "r.json"), []
    with pytest.raises(StoreError, match="first"):
        show(settings, {"a": 1}, failing("first"), failing("second"), None, lambda: written.append(True))
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 1}
    assert written == [True]
    assert capsys.readouterr().err == "error: second\n"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_reader_that_has_gone_does_not_lose_the_file(as_json, tmp_path):
    program = (
        "from pathlib import Path; from types import SimpleNamespace; from query.cli.console import console, show\n"
        f"settings = SimpleNamespace(as_json={as_json}, json_file=Path({str(tmp_path / 'r.json')!r}))\n"
        "try: show(settings, {'a': 1}, lambda: console().print('a table'))\n"
        "except BrokenPipeError: import os; os._exit(7)\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, cwd=ROOT)
    os.close(writer)
    assert done.returncode == 7
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 1}
