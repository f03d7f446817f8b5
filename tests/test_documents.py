"""The documents are correct: the README's tree matches the code, commands parse, and links have targets."""

import json
import re
import shlex
from pathlib import Path

import pytest

from pipeline.scenes.collection import write_collection
from pipeline.settings.load import load_settings
from query.cli.verbs import VERBS, module_of, settings_class

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not {".venv", "build"} & set(path.parts))
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = ("pipeline", "indexer", "query")


def blocks_of(text):
    """The fenced blocks of a document, as (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands_of(text):
    """The clipsieve commands in the fenced blocks of a document, as lists of words."""
    lines = "\n".join(block for _, block in blocks_of(text)).replace("\\\n", " ").splitlines()
    for line in lines:
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:1] == ["clipsieve"]:
                yield words[1:]


def tree_of_readme():
    """The paths in the README's tree, which has two levels."""
    [tree] = [block for _, block in blocks_of(README) if block.startswith("pipeline/")]
    parent = ""
    for line in tree.splitlines():
        names, _, _ = line.strip().partition("  ")
        for name in names.split():
            if line.startswith(" "):
                yield f"{parent}/{name.rstrip('/')}"
            else:
                parent = name.rstrip("/")
                yield parent


def test_the_tree_of_the_readme_matches_the_code():
    named = list(tree_of_readme())
    assert len(named) == len(set(named))
    assert [path for path in named if not (ROOT / path).exists()] == []
    for room in ROOMS:
        there = {path for path in (ROOT / room).iterdir() if path.suffix == ".py" and not path.name.startswith("__")}
        there |= {path.parent for path in (ROOT / room).glob("*/__init__.py")}
        assert {path for path in named if path.startswith(f"{room}/")} == {
            path.relative_to(ROOT).as_posix() for path in there
        }


def test_the_readme_is_short_and_has_the_two_main_commands():
    lines = README.splitlines()
    assert len(lines) <= 200
    assert "pip install . && clipsieve demo" in lines
    assert 'pip install ".[test]" && pytest' in lines


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_parses(path, monkeypatch):
    monkeypatch.setenv("CLIPSIEVE_SHARED", "/shared")
    monkeypatch.chdir(ROOT)  # paths of config files are relative to the root
    for words in commands_of(path.read_text(encoding="utf-8")):
        verb = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in VERBS), None)
        assert verb, words
        argv = words[len(verb.split()) :]
        if any("$" in word or word == "..." for word in argv):  # placeholders
            continue
        load_settings(settings_class(verb), verb, argv, module_of(verb).EXAMPLES)


def test_the_readme_has_commands():
    assert len(list(commands_of(README))) > 10


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_have_targets(path):
    for target in re.findall(r"\]\(([^)#][^)]*)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_linked_headings_exist(path):
    text = path.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    assert [target for target in re.findall(r"\]\(#([^)]+)\)", text) if target not in anchors] == []


def test_the_glossary_is_short():
    glossary = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Glossary\n")[2].partition("\n## ")[0]
    )
    assert 5 < len([line for line in glossary.splitlines() if line.strip()]) <= 17  # 15 terms and a table header


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    [(_, program)] = [block for block in blocks_of(README) if block[0] == "python"]
    write_collection(tmp_path / "photos", 20, split="test")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(re.match(rf"{rank} .*\.\w+$", line) for rank, line in enumerate(lines, 1)), lines


@pytest.mark.parametrize("document", ["README.md", "configs/bench/README.md"])
def test_the_figures_of_the_sweep_are_those_of_its_results(document):
    results = json.loads((ROOT / "configs/bench/sweep_flickr8k_2-core-xeon_2026-11-26/results.json").read_bytes())
    names = {"none": "unpruned", "fast": "policy `fast`", "fast+adapter": "policy `fast` + adapter"}
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    num_found = 0
    for found in results["conditions"]:
        name, on = found["condition"]["name"], found["on"].get("flickr8k-test")
        shown = f"| {names.get(name, '?')} |" if document == "README.md" else f"| {name} "
        rows = [line for line in lines if f"{shown}" in line and ("Ti/16" in line or document != "README.md")]
        row = next((row for row in rows if " / " in row), None)
        if row is None or on is None:
            continue
        recall = [100 * on["metrics"][f"image_retrieval_recall@{k}"]["value"] for k in (1, 5, 10)]
        assert " / ".join(f"{value:.1f}" for value in recall) in row
        if on["differences"]:
            change, speed = on["differences"]["image_retrieval_recall@5"], found["speed"]["speedup"]
            low, value, high = (100 * change[end] for end in ("low", "value", "high"))
            assert f"| {value:+.1f} ({low:+.1f}..{high:+.1f}) |" in row
            assert f" {speed['value']:.2f}x" in row
        num_found += 1
    assert num_found == (3 if document == "README.md" else 34)
