"""The house rules, checked on the source: who imports what, where heavy libraries live, how large things get."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The contents of each room, lowest level first: a file or room imports only from lower levels, never from its own.
# Rooms that are not listed hold only files, which may import each other but not in a cycle.
LEVELS = {
    "": [["pipeline"], ["indexer"], ["query"]],
    "pipeline": [
        ["errors", "machine"],
        ["yaml_file"],
        ["durable", "source"],
        ["model"],
        ["settings", "pixels", "store"],
        ["planning", "measure", "monitor"],
        ["workers", "training", "scenes", "resample", "imported"],
        ["embed_report"],
        ["choices"],
        ["embedding", "dry_run", "adapt", "verify", "delete", "compact"],
    ],
    "pipeline.pixels": [
        ["formats", "batch", "read_ahead", "resize"],
        ["missing_decoder"],
        ["opening"],
        ["decode", "nvjpeg"],
        ["to_device"],
    ],
    "pipeline.source": [
        ["left_out", "limits", "secrets"],
        ["entry"],
        ["access", "sorting"],
        ["formats"],
        ["listing", "reading"],
        ["sample"],
    ],
    "pipeline.source.formats": [
        ["text"],
        ["tree", "arrow_types", "lines"],
        ["folder"],
        ["tar", "captions", "files", "inline"],
        ["webdataset", "parquet", "table"],
    ],
    "pipeline.model": [
        ["precision"],
        ["towers"],
        ["pruning"],
        ["spec", "hashing", "no_init", "tokenizer"],
        ["adapter", "device", "quantization", "text_tower"],
        ["probe"],
        ["load", "transform"],
        ["encode", "export"],
        ["calibrate"],
    ],
    "query.service": [
        ["settings", "problems", "metrics"],
        ["sessions"],
        ["asking", "questions", "images"],
        ["stores"],
        ["service", "answers"],
        ["page"],
        ["routes", "guards"],
        ["app"],
        ["run"],
    ],
    "query.bench": [["gpu"], ["model"]],
    "query.evaluation.report": [
        ["words", "definitions"],
        ["tables"],
        ["drawing"],
        ["answer", "pictures"],
        ["examples"],
        ["contents"],
        ["page", "markdown"],
        ["write"],
    ],
    "query.evaluation": [
        ["conditions", "record", "settings"],
        ["results", "grid", "ranking"],
        ["data"],
        ["raw", "statistics"],
        ["running", "metrics", "report"],
        ["exports", "earlier", "answers"],
        ["gates"],
        ["sweep"],
    ],
    "query.evaluation.running": [
        ["kept", "environment"],
        ["calibrations", "galleries", "towers"],
        ["vectors", "texts"],
        ["ranked", "timed", "pictures", "prepare"],
        ["indexes", "mixed"],
        ["run"],
    ],
    "query.bench.gpu": [["setup"], ["steps", "machine"], ["worker"], ["runner"], ["report"]],
    "indexer": [
        ["settings", "files"],
        ["recipes", "rows"],
        ["planning"],
        ["building", "proof"],
        ["manifest", "searcher"],
        ["earlier"],
        ["opening"],
        ["prove", "update", "check", "choose"],
        ["build"],
        ["__main__"],
    ],
    "query": [
        ["formats"],
        ["settings", "text", "filters"],
        ["image"],
        ["queries"],
        ["search_settings", "hits", "proof"],
        ["opened"],
        ["searcher"],
        ["batch"],
        ["pictures"],
        ["evaluation", "bench", "service"],
        ["evaluate", "inspect", "doctor"],
        ["demo"],
        ["cli"],
    ],
}
INDEXER_USES = [
    "pipeline.errors",
    "pipeline.machine",
    "pipeline.durable",
    "pipeline.store",
    "pipeline.settings",
    "pipeline.measure.recall",
]

# Where each heavy library may be imported at the top of a file, and where inside a function (only when needed).
# A room stands for all its files.
HOMES = {
    "ray": (["pipeline.workers"], []),
    "torch": (
        [
            "pipeline.adapt",
            "pipeline.measure.parity",
            "pipeline.measure.timing",
            "pipeline.model",
            "pipeline.pixels.nvjpeg",
            "pipeline.pixels.to_device",
            "pipeline.scenes",
            "pipeline.training",
            "query.bench.gpu.steps",
            "query.evaluation.running.environment",
            "query.evaluation.running.towers",
        ],
        ["pipeline.workers.encode_worker", "query.doctor"],
    ),
    "open_clip": (
        ["pipeline.model", "pipeline.scenes", "query.bench.gpu.steps.models"],
        ["pipeline.workers.encode_worker"],
    ),
    "torchvision": (["pipeline.pixels.nvjpeg"], []),
    "timm": (["pipeline.model.towers.timm_tower"], []),
    "faiss": (
        [
            "indexer.build",
            "indexer.building",
            "indexer.earlier",
            "indexer.files",
            "indexer.planning.calibration",
            "indexer.planning.pilot",
            "indexer.proof",
            "indexer.recipes",
            "indexer.rows",
            "indexer.searcher",
            "indexer.update",
            "query.bench.gpu.steps.faiss",
        ],
        [],
    ),
    "lark": ([], ["query.filters.syntax"]),
    "fsspec": ([], ["pipeline.source.access.remote"]),
    "matplotlib": (
        [],
        [
            "query.evaluation.report.drawing",
            "query.pictures.plot",
            "query.pictures.recall",
        ],
    ),
    "prometheus_client": (["query.service.metrics", "query.service.routes.health"], ["pipeline.monitor.events"]),
    "fastapi": (["query.service.app", "query.service.routes"], []),
    "starlette": (["query.service"], []),
    "uvicorn": (["query.service.guards.connections", "query.service.run"], []),
    "wandb": ([], ["pipeline.monitor.events"]),
    "yaml": (["pipeline.yaml_file"], []),
    "rich": (["pipeline.monitor.progress", "query.cli.console"], ["query.cli"]),
}
BANNED_NAMES = {"utils", "util", "common", "helpers", "misc", "base", "manager"}
MAX_LINES = {"code": 300, "tests": 400}
MAX_FUNCTION_LINES = 60
MAX_FILES_IN_A_ROOM = 12  # besides __init__
CROWDED = {"query.cli"}  # one file per verb


def module_of(path):
    return path.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", ".")


FILES = {module_of(path): path for top in ("pipeline", "indexer", "query") for path in (ROOT / top).rglob("*.py")}
ROOMS = sorted(module for module, path in FILES.items() if path.name == "__init__.py")


def statements_of(path):
    """Every import statement of a file, as (node, whether at the top level)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(block)
    }
    return [(node, id(node) not in inner) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def for_type_checkers(path):
    """Everything imported only for type checkers."""
    blocks = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.If)]
    blocks = [block for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING"]
    return {node.module or "" for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)} | {
        alias.name for block in blocks for node in block.body if isinstance(node, ast.Import) for alias in node.names
    }


def imports_of(module):
    """Everything a module imports, as (module, whether at the top level); submodules by their own names."""
    for node, is_at_top in statements_of(FILES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, is_at_top) for alias in node.names)
            continue
        assert node.level == 0, f"{module}: imports are absolute"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield (full if full in FILES else node.module), is_at_top


def is_in(module, rooms):
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def branches(one, other):
    """The innermost room that holds both modules, and the child of that room that leads to each."""
    first, second = one.split("."), other.split(".")
    depth = next((n for n, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    return None if depth is None else (".".join(first[:depth]), first[depth], second[depth])


def level_in(room, child):
    return next((number for number, children in enumerate(LEVELS[room]) if child in children), None)


def test_the_levels_match_the_files():
    for room, levels in LEVELS.items():
        found = {
            name.removeprefix(f"{room}.") for name in FILES if name != room and is_in(name, [room] if room else [])
        }
        found = {name.split(".")[0] for name in found} if room else {name.split(".")[0] for name in FILES}
        named = [child for children in levels for child in children]
        assert len(named) == len(set(named))
        assert set(named) == found, room


def test_rooms_with_rooms_inside_have_levels():
    inside = {room.rpartition(".")[0] for room in ROOMS}
    assert inside == set(LEVELS)


@pytest.mark.parametrize("module", FILES)
def test_imports_run_downwards(module):
    for imported, _ in imports_of(module):
        found = branches(module, imported) if imported in FILES else None
        if found and found[0] in LEVELS:
            room, own, other = found
            assert level_in(room, other) < level_in(room, own), f"{module} imports {imported}"


def test_there_are_no_import_cycles():
    done, active = set(), []

    def visit(module):
        if module in done:
            return
        assert module not in active, [*active[active.index(module) :], module]
        active.append(module)
        is_package, not_run = FILES[module].name == "__init__.py", for_type_checkers(FILES[module])
        for imported, is_at_top in imports_of(module):
            # a package's public functions import its modules when they are called, long after all are imported
            is_later = is_package and (not is_at_top or imported in not_run)
            if imported in FILES and not is_later:
                visit(imported)
        done.add(active.pop())

    for module in FILES:
        visit(module)


@pytest.mark.parametrize("module", [module for module in FILES if is_in(module, ["indexer"])])
def test_the_indexer_imports_little_of_the_pipeline(module):
    wrong = [name for name, _ in imports_of(module) if is_in(name, ["pipeline"]) and not is_in(name, INDEXER_USES)]
    assert not wrong


@pytest.mark.parametrize("module", FILES)
def test_heavy_libraries_stay_at_home(module):
    not_run = for_type_checkers(FILES[module])
    for imported, is_at_top in imports_of(module):
        library = imported.split(".")[0]
        if library in HOMES and imported not in not_run:
            always, inside_functions = HOMES[library]
            allowed = is_in(module, always) or (not is_at_top and is_in(module, inside_functions))
            assert allowed, f"{library} is imported {'at the top' if is_at_top else 'inside a function'}"


def test_every_home_is_used():
    # a home that no file uses is a rule that checks nothing
    for library, (always, inside_functions) in HOMES.items():
        for home in [*always, *inside_functions]:
            users = [module for module in FILES if is_in(module, [home])]
            found = {imported.split(".")[0] for module in users for imported, _ in imports_of(module)}
            assert library in found, f"{home} imports no {library}"


@pytest.mark.parametrize("module", FILES)
def test_names_and_sizes(module):
    assert not set(module.split(".")) & BANNED_NAMES
    text = FILES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES["code"]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_sizes_of_tests(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES["tests"]


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_is_crowded(room):
    files = [path for path in FILES[room].parent.glob("*.py") if not path.name.startswith("__")]
    assert room in CROWDED or len(files) <= MAX_FILES_IN_A_ROOM


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pipeline", {"torch", "ray", "pyarrow", "PIL", "numpy"}),
        ("indexer", {"torch", "ray", "pyarrow", "faiss"}),
        ("query", {"torch", "ray", "pyarrow", "faiss"}),
        ("pipeline.settings.embed", {"torch", "ray", "open_clip", "pyarrow", "numpy"}),
        ("indexer.build", {"torch", "ray", "open_clip"}),
        ("indexer.planning.planner", {"torch", "ray", "faiss", "pyarrow"}),
        ("query.cli.main", {"torch", "ray", "faiss", "open_clip", "pydantic", "rich"}),
        ("query.searcher", {"torch", "ray", "open_clip", "timm", "torchvision"}),
        ("query.text", {"torch", "open_clip", "timm", "torchvision"}),
        ("query.image", {"torch", "open_clip", "timm", "torchvision", "PIL"}),
        ("pipeline.workers.pool", {"torch", "open_clip"}),
        ("pipeline.embedding", {"torch", "ray", "open_clip", "timm"}),
        ("pipeline.imported.import_store", {"torch", "ray", "open_clip", "timm", "faiss"}),
    ],
)
def test_importing_is_light(module, unwanted):
    program = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert module in run.stdout.split()
    assert not unwanted & set(run.stdout.split())
