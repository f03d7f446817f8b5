"""`--help`: four groups of verbs, flags in groups with their choices and defaults, and nothing heavy imported."""

import re
import subprocess
import sys

import pytest

from pipeline.settings.flags import GROUPS as TITLES
from pipeline.settings.flags import grouped_fields, key_of
from query.cli.main import main
from query.cli.verbs import GROUPS, VERBS, module_of, settings_class

DEVICE = {
    "serve",
    "embed",
    "evaluate",
    "adapt",
    "inspect",
    "demo",
    "doctor",
    "bench model",
    "bench gpu",
    "search",
    "verify",
}
PRECISION = DEVICE - {"search", "serve", "verify", "bench gpu"}
SHOWN = set(VERBS) - {"completion", "serve"}


def help_of(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*verb.split(), "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_the_verbs_are_listed_in_four_groups_with_their_summaries(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^(\w+):$", text, re.MULTILINE) == ["make", "find", "measure", "keep"]
    for verbs in GROUPS.values():
        for verb in verbs:
            assert re.search(rf"^  {verb} +{re.escape(module_of(verb).SUMMARY)}$", text, re.MULTILINE)
    assert "exit codes: 0 done" in text


@pytest.mark.parametrize("argv", [["bench"], ["bench", "--help"]])
def test_the_benches_are_listed(argv, capsys):
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "bench model  " in text
    assert "bench gpu  " in text


@pytest.mark.parametrize(
    ("argv", "unwanted"),
    [
        (["--help"], {"torch", "ray", "faiss", "pyarrow", "numpy", "pydantic", "rich", "yaml"}),
        (["bench", "--help"], {"torch", "ray", "faiss", "pyarrow", "numpy", "pydantic", "rich", "yaml"}),
        (["embed", "--help"], {"torch", "ray", "faiss", "pyarrow", "numpy", "rich"}),
        (["evaluate", "--help"], {"torch", "ray", "faiss", "pyarrow", "numpy", "rich"}),
        (["completion", "bash"], {"torch", "ray", "faiss", "pyarrow", "numpy", "rich"}),
    ],
)
def test_help_imports_nothing_heavy(argv, unwanted):
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        f"from query.cli.main import main; main({argv!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "query.cli.main" in loaded
    assert not unwanted & loaded


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_has_one_group_and_a_help_text(verb):
    model = settings_class(verb)
    grouped = [name for names in grouped_fields(model).values() for name in names]
    assert sorted(grouped) == sorted(model.model_fields)
    for name, field in model.model_fields.items():
        assert field.description, name
        assert not re.match(r"(Of|The same|Whether)\b", field.description), name
        assert field.description.endswith("."), name


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_is_readable(verb, capsys):
    text = help_of(verb, capsys)
    assert f"  clipsieve {verb}" in text or f"clipsieve {verb} " in text.split("examples:")[1]
    for wrong in ("(default:", "None", "{bool", "(required)", "Path", "bool", " int ", " str ", " float "):
        assert wrong not in text
    titles = re.findall(r"^([a-z ]+):$", text.split("examples:")[0], re.MULTILINE)
    assert titles == [title for title in TITLES if title in titles]
    sections = dict(
        zip(titles, re.split(r"^[a-z ]+:$", text.split("examples:")[0], flags=re.MULTILINE)[1:], strict=True)
    )
    model = settings_class(verb)
    for title, names in grouped_fields(model).items():
        for name in names:
            key = key_of(name, model.model_fields[name])
            flag = "-k" if key == "k" else f"--{key.replace('_', '-')}"
            assert re.search(rf"^  ({flag}|{name.upper()})\b", sections[title], re.MULTILINE), name


def test_choices_and_defaults_are_shown_and_switches_are_plain(capsys):
    text = help_of("embed", capsys)
    assert "--precision {auto,fp32,bf16,fp16,int8,fp8,8bit}" in text
    assert "[default: auto]" in text
    assert "[default: 0.8]" in text
    assert re.search(r"^  --dry-run  ", text, re.MULTILINE)
    assert "--no-dry-run" not in text
    assert text.startswith("usage: clipsieve embed SOURCE --out PATH [options]\n")


@pytest.mark.parametrize("verb", VERBS)
def test_shared_flags_are_where_they_make_sense(verb):
    fields = settings_class(verb).model_fields
    assert ("device" in fields) == (verb in DEVICE)
    assert ("precision" in fields) == (verb in PRECISION)
    assert {"as_json", "json_file"} <= set(fields) or verb not in SHOWN


@pytest.mark.parametrize(
    ("argv", "advice"),
    [
        (["evaluate", "--json", "r.json"], "--json-file r.json"),
        (["evaluate", "--json=r.json"], "--json-file r.json"),
        (["search", "store", "a cat", "--json", "r.json"], "--json-file r.json"),
        (["sweep", "--json", "out/r.json", "grid.yaml"], "--json-file out/r.json"),
        (["bench", "model", "--dtype", "bf16"], "--precision bf16"),
        (["bench", "model", "--dtype=fp32"], "--precision fp32"),
    ],
)
def test_old_flags_name_the_new_ones(argv, advice, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert advice in captured.err


@pytest.mark.parametrize(
    ("verb", "key", "value", "advice"),
    [
        ("bench model", "dtype", "bf16", "precision"),
        ("sweep", "plan", "grid.yaml", "grid"),
        ("doctor", "json", "results", "--json-file"),
    ],
)
def test_old_keys_name_the_new_ones(verb, key, value, advice, tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"{key}: {value}\n")
    variable = f"CLIPSIEVE_{verb}_{key}".upper().replace(" ", "_")
    assert main([*verb.split(), "--config", str(config)]) == 2
    from_file = capsys.readouterr().err
    monkeypatch.setenv(variable, value)
    assert main(verb.split()) == 2
    from_environment = capsys.readouterr().err
    for error in (from_file, from_environment):
        assert error.count("\n") == 1
        assert advice in error


def test_the_verb_is_named_once(capsys):
    assert main(["embed", "--out", "store"]) == 2
    error = capsys.readouterr().err
    assert error.count("clipsieve embed:") == 1
    assert "SOURCE" in error


@pytest.mark.parametrize("verb", [verb for verb in VERBS if "json_file" in settings_class(verb).model_fields])
def test_the_variables_of_a_verb_can_be_set_by_a_shell(verb, monkeypatch, capsys):
    [name] = set(re.findall(r"for example (\S+CONFIG)$", help_of(verb, capsys), re.MULTILINE))
    assert re.fullmatch(r"[A-Z_]+", name)
    monkeypatch.setenv(name.replace("CONFIG", "JSON_FILE"), "/proc/no-such/r.json")
    required = [f for n, f in settings_class(verb).model_fields.items() if f.is_required()]
    flags = {"embed": ["x", "--out", "y"], "evaluate": ["--images", "x", "--captions", "y"], "adapt": ["--out", "x"]}
    flags["sweep"] = ["x", "--out", "y"]
    flags |= {"search": ["x", "y"], "delete": ["x", "--keys", "y"], "import": ["x", "--out", "y", "--model", "z"]}
    assert main([*verb.split(), *flags.get(verb, ["x"] if required else [])]) == 4
    assert "cannot write --json-file /proc/no-such/r.json" in capsys.readouterr().err
