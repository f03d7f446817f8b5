"""What `clipsieve doctor` says about FAISS, and about the speed of precisions."""

import json
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import faiss
import pytest
import torch

from query import doctor
from query.cli.__main__ import main


@pytest.fixture
def sections(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_try_model", lambda settings, device: ("not loaded", {}, {}))  # takes seconds

    def examine():
        assert main(["doctor", "--precision", "fp32", "--device", "cpu", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return examine


def test_the_package_that_owns_faiss(sections):
    (owner,) = packages_distributions()["faiss"]
    assert sections()["versions"]["faiss"] == f"{faiss.__version__} ({owner} {faiss.__version__})"


def test_two_packages_that_own_faiss(sections, tmp_path, monkeypatch):
    (folder := tmp_path / "faiss_gpu_cuvs-1.15.0.dist-info").mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: faiss-gpu-cuvs\nVersion: 1.15.0\n")
    (folder / "top_level.txt").write_text("faiss\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = sections()["versions"]["faiss"]
    assert "faiss-gpu-cuvs 1.15.0" in found
    assert found.endswith(": they overwrite each other's files; uninstall all of them, then install one)")


def test_the_simd_level_and_the_openmp_runtimes(sections, monkeypatch):
    found = sections()["faiss on the CPU"]
    assert found["SIMD level"] == faiss.SIMDConfig.get_level_name()
    if Path("/proc/self/maps").exists():
        runtimes = found["OpenMP runtimes"].split(", ")
        assert any(runtime.startswith("faiss") for runtime in runtimes)  # the folder, such as faiss_gpu.libs
    monkeypatch.setenv("FAISS_SIMD_LEVEL", "AVX2")
    assert sections()["faiss on the CPU"]["SIMD level"].endswith(", by FAISS_SIMD_LEVEL")


def test_faiss_that_is_missing_or_cannot_be_imported(sections, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "indexer.files", raising=False)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert sections()["versions"]["faiss"].startswith("missing (")
    (tmp_path / "faiss.py").write_text("raise ImportError('undefined symbol: _ZTIN3rmm9bad_allocE')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "faiss")
    found = sections()
    assert found["versions"]["faiss"].startswith("cannot be imported: undefined symbol: _ZTIN3rmm9bad_allocE (")
    assert found["what will run where"]["index and search"] == "CPU"


@pytest.fixture
def threads():
    """Restores the number of threads, which is set to that of one of several workers."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="int8 needs oneDNN")
def test_a_cpu_has_a_row_for_int8_which_auto_never_takes(tiny_model, threads, capsys):
    assert main(["doctor", "--model", tiny_model, "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    speeds = found["speed of precisions"]
    assert speeds["fp32"] == "1.00 x fp32"
    assert speeds["int8"].endswith(" x fp32")
    assert speeds["8 bits"].endswith("; they cost recall, so auto never takes them; give --precision 8bit")
    assert speeds["auto"].startswith(("fp32", "bf16", "fp16"))
    assert found["what will run where"]["encode"].startswith(f"cpu, {speeds['auto']}, ")
