"""With `auto`, a store is begun in the precision that was measured to be fastest, and keeps it."""

import json
import shutil

import pytest
import torch

from pipeline.durable import measured
from pipeline.machine import cache_folder, num_cores
from pipeline.model import probe
from pipeline.model.load import load_model
from pipeline.model.precision import Candidate, Measurement
from pipeline.model.spec import ModelSource
from pipeline.model.towers.families import view_of
from pipeline.store.layout import Store
from query.cli.main import main

CPU = torch.device("cpu")
FP32, OURS = Candidate(precision="fp32"), Candidate(precision="bf16", kernels="onednn")


@pytest.fixture
def remember(tiny_model):
    """Writes a measurement of the tiny model into the cache that the workers read."""
    if len(probe.candidates_of(CPU)) == 1:
        pytest.skip("this CPU lists float32 alone, so that nothing is measured")
    tower, threads = (
        view_of(load_model(ModelSource(model=tiny_model), "fp32", "cpu").clip.visual),
        torch.get_num_threads(),
    )

    def write(chosen):
        for number in range(1, num_cores() + 1):
            torch.set_num_threads(number)
            found = Measurement(chosen=chosen, speeds={"fp32": 1.0, "bf16": 1.1, str(OURS): 1.5})
            measured.remember("precision.json", probe._key(tower, CPU, 32), found)

    yield write
    torch.set_num_threads(threads)
    (cache_folder() / "precision.json").unlink(missing_ok=True)


def begun_with(folder):
    record = Store(folder).read_record()
    return record.encoder.precision, record.kernels


def test_a_store_keeps_what_it_was_begun_with(photos, tiny_model, tmp_path, ray_session, remember, capsys, make_image):
    source = shutil.copytree(photos, tmp_path / "photos")
    argv = ["embed", str(source), "--model", tiny_model, "--device", "cpu", "--workers", "1", "--out"]

    def last_lines(store):
        capsys.readouterr()
        assert main([*argv, str(store)]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("precision ")]

    remember(OURS)
    said = "precision bf16 by onednn (speed relative to fp32: fp32 1.00, bf16 1.10, bf16 by onednn 1.50)"
    assert last_lines(tmp_path / "store") == [said]
    assert begun_with(tmp_path / "store") == ("bf16", "onednn")
    assert json.loads((tmp_path / "store" / "run.json").read_text())["environment"]["kernels"] == "onednn"

    remember(FP32)
    make_image(40, 40, 99).save(source / "new.png")
    assert last_lines(tmp_path / "store") == []  # nothing was measured
    assert begun_with(tmp_path / "store") == ("bf16", "onednn")
    assert last_lines(tmp_path / "other")[0].startswith("precision fp32 (")
    assert begun_with(tmp_path / "other") == ("fp32", "torch")
