"""The house rules, read from the source: who imports whom, where the heavy libraries live, how large files are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("query", "indexer", "pipeline")  # each may import itself and those after it
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))

# Where a heavy library may be imported at the top of a file, and where inside a function (so: only when needed).
# A folder stands for all files in it.
HOMES = {
    "ray": (["pipeline/ray_session.py", "pipeline/ray_worker.py", "pipeline/ray_pool.py", "pipeline/ray_run.py"], []),
    "torch": (
        [
            "pipeline/model/",
            *(
                f"pipeline/{name}.py"
                for name in ("encode", "ingest", "jpegs", "bench", "adapt", "teacher", "student", "training", "parity")
            ),
            "pipeline/checkpoint.py",
        ],
        ["pipeline/ray_worker.py", "query/doctor.py"],
    ),
    "open_clip": (["pipeline/model/"], ["pipeline/ray_worker.py"]),
    "torchvision": (["pipeline/jpegs.py"], []),
    "timm": (["pipeline/model/timm_tower.py"], []),
    "faiss": (["indexer/flat.py"], []),
    "fsspec": ([], ["pipeline/source/remote.py"]),
    "prometheus_client": ([], ["pipeline/reporting.py"]),
    "wandb": ([], ["pipeline/reporting.py"]),
    "rich": (["pipeline/progress.py", "query/report.py"], []),
}
BANNED_NAMES = {"utils", "util", "common", "helpers", "misc", "base", "manager"}


def imports_of(path):
    """(module, whether at the top level) of every import statement of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module, id(node) not in inner


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def lives_in(path, homes):
    return any(name_of(path) == home or (home.endswith("/") and name_of(path).startswith(home)) for home in homes)


def test_every_layer_was_found():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path):
    layer = path.relative_to(ROOT).parts[0]
    above = LAYERS[: LAYERS.index(layer)]
    wrong = [module for module, _ in imports_of(path) if module.split(".")[0] in above]
    assert not wrong, f"{layer} may not import from {above}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_libraries_stay_at_home(path):
    for module, at_top in imports_of(path):
        library = module.split(".")[0]
        if library in HOMES:
            always, inside_functions = HOMES[library]
            allowed = lives_in(path, always) or (not at_top and lives_in(path, inside_functions))
            assert allowed, f"{library} is imported {'at the top' if at_top else 'inside a function'}"


def test_every_home_is_lived_in():
    # a home that no file uses is a rule that guards nothing
    for library, (always, inside_functions) in HOMES.items():
        for home in [*always, *inside_functions]:
            users = [path for path in FILES if lives_in(path, [home])]
            modules = {module.split(".")[0] for path in users for module, _ in imports_of(path)}
            assert library in modules, f"{home} imports no {library}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_size_and_name(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in BANNED_NAMES
    assert path.parent.name not in BANNED_NAMES


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pipeline", {"torch", "ray", "pyarrow", "PIL", "numpy"}),
        ("indexer", {"torch", "ray", "pyarrow", "faiss"}),
        ("query", {"torch", "ray", "pyarrow", "faiss"}),
        ("pipeline.settings", {"torch", "ray", "open_clip"}),
        ("indexer.build", {"torch", "ray", "open_clip"}),
        ("query.cli", {"torch", "ray", "faiss", "open_clip"}),
        ("pipeline.ray_pool", {"torch", "open_clip"}),
        ("pipeline.run", {"torch", "open_clip", "timm"}),
    ],
)
def test_importing_is_light(module, unwanted):
    program = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert module in run.stdout.split()
    assert not unwanted & set(run.stdout.split())
