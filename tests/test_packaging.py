"""The wheel contains everything the demo needs: build it, install it in a new environment, run the demo elsewhere."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A virtual environment with the wheel, which falls back to this environment's packages."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files in the source, so build a copy
    for name in ("pipeline", "indexer", "query"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", str(source), "--no-deps", "--no-build-isolation", "-w", str(folder)], check=True)
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout.strip())
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    # last, because pip would mistake a clipsieve installed there for the one to install
    (site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin", site


def test_wheel_contains_only_the_three_packages_and_their_data(installed):
    _, site = installed
    assert (site / "pipeline" / "scenes" / "weights" / "open_clip_model.safetensors").is_file()
    page = site / "query" / "service" / "page"
    assert {"page.js", "style.css"} <= {path.name for path in (page / "static").iterdir()}
    assert (page / "templates" / "page.html").is_file()
    report = site / "query" / "evaluation" / "report" / "templates"
    assert {path.name for path in report.iterdir()} == {"parts.html", "report.html", "style.css"}
    assert not (site / "configs").exists()
    assert not (site / "tests").exists()


@pytest.mark.ray
def test_demo_runs_from_an_empty_folder(installed, tmp_path):
    binaries, site = installed
    # -P, as in a console script: the working directory is not on the path
    probe = [binaries / "python", "-P", "-c", "import pipeline; print(pipeline.__file__)"]
    assert subprocess.run(probe, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.startswith(str(site))
    command = [binaries / "clipsieve", "demo", "--num-images", "100", "--json-file", "results.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert [condition["name"] for condition in results["conditions"]] == ["none", "pruned", "pruned+adapter"]
    assert results["num_images"] == 100
    assert results["conditions"][0]["metrics"]["image_retrieval_recall@10"] > 0.9
    assert (tmp_path / "clipsieve-demo" / "sheet.png").is_file()
    for name in ("none", "balanced", "balanced+adapter"):
        assert list((tmp_path / "clipsieve-demo" / "stores" / name / "index").glob("image-*.index"))
    assert "contact sheet" in done.stderr
