"""`clipsieve inspect`: the table adds up, and the picture shows the kept patches."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from query.cli.main import main
from query.pictures.overlay import write_overlay


def test_table_adds_up(tiny_model, capsys):
    assert main(["inspect", "--model", tiny_model, "--keep-ratio", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [block["patches"] for block in found["blocks"]] == [16, 8, 8, 8]
    assert [block["tokens"] for block in found["blocks"]] == [17, 10, 10, 10]  # the class token and the summary
    assert sum(block["gmacs"] + block["cut_gmacs"] for block in found["blocks"]) < found["gmacs"]
    assert found["theoretical"] == pytest.approx(found["unpruned_gmacs"] / found["gmacs"])
    assert main(["inspect", "--model", tiny_model, "--keep-ratio", "0.5"]) == 0
    table = capsys.readouterr().out
    assert "reference(0.5)" in table
    assert f"{found['theoretical']:.2f}x" in table


def test_a_name_without_weights_is_enough_for_the_table(capsys):
    assert main(["inspect", "--model", "ViT-B-32", "--gmac-ratio", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 2.0 <= found["theoretical"] < 2.1
    assert found["unpruned_gmacs"] == pytest.approx(4.41, abs=0.01)  # as published


def test_the_picture_of_kept_patches(tiny_model, photos, tmp_path, capsys):
    picture = tmp_path / "kept.png"
    argv = ["inspect", "--model", tiny_model, "--keep-ratio", "0.5"]
    assert main([*argv, "--image", str(photos / "photo-01.png"), "--picture", str(picture)]) == 0
    assert str(picture) in capsys.readouterr().err
    with Image.open(picture) as image:
        assert image.size == (14 + 2 * (336 + 14), 14 + 336 + 26 + 14)


def test_int8_is_calibrated_on_the_photo(tiny_model, photos, tmp_path, capsys):
    picture = tmp_path / "kept.png"
    argv = ["inspect", "--model", tiny_model, "--precision", "int8", "--device", "cpu", "--json"]
    assert main(argv) == 0
    table = json.loads(capsys.readouterr().out)
    assert main([*argv, "--image", str(photos / "photo-01.png"), "--picture", str(picture)]) == 0
    assert json.loads(capsys.readouterr().out) == table
    assert picture.exists()
    assert main([*argv, "--precision", "fp8"]) == 2
    assert "fp8 is for GPUs" in capsys.readouterr().err


def test_dropped_patches_are_faded(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    write_overlay(tmp_path / "kept.png", pixels, (2, 2), [(1, np.array([0, 3]))])
    with Image.open(tmp_path / "kept.png") as image:
        panel = np.asarray(image)[14 : 14 + 336, 14 + 350 : 14 + 350 + 336]
    assert panel[80, 80].max() == 0
    assert panel[250, 250].max() == 0
    assert panel[80, 250].min() > 150
    assert panel[250, 80].min() > 150


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "RN50"], "ModifiedResNet is not a Vision Transformer; use the policy `none`"),
        (["--policy", "lossless", "--gmac-ratio", "2"], "'lossless' has no schedule to sharpen"),
        (["--policy", "balanced", "--gmac-ratio", "40"], r"gmac_ratio = 40: policy 'balanced\(40x\)' reaches at most"),
        (["--gmac-ratio", "0.5"], "gmac_ratio = '0.5': input should be greater than 1"),
        (["--image", "/nowhere.jpg"], "cannot decode /nowhere.jpg: unreadable"),
    ],
)
def test_errors_are_one_line(argv, message, capsys):
    assert main(["inspect", *argv]) in (2, 3)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
