"""Calibrations as files, what they fit, and their part in the fingerprint."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pipeline.errors import InputError
from pipeline.model.quantization.calibration import (
    Calibration,
    doubt_about,
    read_calibration,
    unpack_calibration,
)
from pipeline.model.quantization.packed import MadeOf, calibration_sha256, made_of, read_packed
from pipeline.model.quantization.products import Range
from pipeline.model.spec import EncoderSpec

MADE_OF = MadeOf(model="m", image_weights_sha256="1" * 64, height=32, width=32, policy="balanced", num_images=7)


def calibration_of(scale=0.5, **changes):
    ranges = {
        "0.qkv": Range(scale=scale, zero_point=3, smooth_K=torch.tensor([1.0, 2.0])),
        "0.fc2": Range(scale=0.25, zero_point=0, outliers_M=torch.tensor([1])),
    }
    return Calibration(ranges=ranges, made_of=MADE_OF.model_copy(update=changes))


def test_a_file_holds_all_of_it(tmp_path):
    calibration_of().write(tmp_path / "c.safetensors")
    found = read_calibration(tmp_path / "c.safetensors")
    assert found.made_of == MADE_OF == made_of(read_packed(tmp_path / "c.safetensors"))
    qkv, fc2 = found.ranges["0.qkv"], found.ranges["0.fc2"]
    assert (qkv.scale, qkv.zero_point, qkv.outliers_M) == (0.5, 3, None)
    assert qkv.smooth_K.tolist() == [1.0, 2.0]
    assert (fc2.scale, fc2.smooth_K, fc2.outliers_M.tolist()) == (0.25, None, [1])
    assert found.packed() == calibration_of().packed() == (tmp_path / "c.safetensors").read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "c.safetensors"]


def test_the_hash_covers_the_ranges_and_nothing_else():
    one = calibration_of()
    assert calibration_of(num_images=9, model="elsewhere").sha256 == one.sha256
    assert calibration_of(scale=0.5000001).sha256 != one.sha256
    assert calibration_sha256(one.packed()) == unpack_calibration(one.packed()).sha256 == one.sha256


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"image_weights_sha256": "2" * 64}, "weights 1111111111111111 (m), but this one has 2222222222222222"),
        ({"adapter": "3" * 64}, "adapter none (m), but this one has 3333333333333333"),
        ({"height": 48, "image_weights_sha256": "2" * 64}, "input height 32 (m), but this one has 48"),
    ],
    ids=["weights", "adapter", "size"],
)
def test_ranges_of_another_tower_do_not_fit(change, what):
    misfit = calibration_of().misfit(MADE_OF.model_copy(update={**change, "model": "other"}))
    assert misfit == f"it is of a tower with the {what} (other)"
    assert calibration_of().misfit(MADE_OF.model_copy(update={"policy": "none", "num_images": 0})) is None


@pytest.mark.parametrize("content", [b"", b"no calibration", calibration_of().packed()[:-1], b"\0" * 100], ids=len)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "c.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"c.safetensors cannot be read: .*; give the calibration.safetensors of a st"):
        read_packed(tmp_path / "c.safetensors")


def test_missing_files_and_other_safetensors_are_refused(tmp_path):
    save_file({"weights": np.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w.safetensors cannot be read"):
        read_packed(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"none.safetensors cannot be read: No such file or directory; give"):
        read_packed(tmp_path / "none.safetensors")


def test_reading_the_bytes_needs_no_torch(tmp_path):
    calibration_of().write(tmp_path / "c.safetensors")
    program = (
        "import sys; from pathlib import Path; from pipeline.model.quantization.packed import *; "
        "print(calibration_sha256(read_packed(Path(sys.argv[1]))), 'torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "c.safetensors"], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [calibration_of().sha256, "False"]


def test_a_calibration_changes_the_image_space_alone(spec):
    int8 = spec.model_copy(update={"precision": "int8"})
    one, other = (int8.model_copy(update={"calibration": digit * 64}) for digit in "12")
    assert one.text_space == other.text_space == spec.text_space
    assert len({spec.image_space, int8.image_space, one.image_space, other.image_space}) == 4
    assert EncoderSpec.model_validate_json(one.model_dump_json()) == one


def test_the_record_of_a_float_encoder_is_as_before(spec):
    assert "calibration" not in json.loads(spec.model_dump_json())  # old stores, and parts, keep their bytes
    assert spec.fingerprint == "0d0698951f4bd0ec-b08e54eafeef4661"


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_enough_images_that_differ_raise_no_doubt():
    blank = np.zeros((100, 8, 8, 3), np.uint8)
    assert doubt_about(np.concatenate([images(32), blank]), "add more") is None


SAME = np.repeat(images(1), 100, axis=0)
ONE_COLOUR_EACH = images(100)[:, :1, :1].repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (images(0), "on 0 different images (of 0;"),
        (images(31), "on 31 different images (of 31;"),
        (SAME, "on 1 different images (of 100;"),
        (ONE_COLOUR_EACH, "on 0 different images (of 100;"),
        (np.concatenate([ONE_COLOUR_EACH, SAME, images(8)]), "on 8 different images (of 208;"),
    ],
    ids=["none", "few", "same", "blank", "mixed"],
)
def test_images_to_doubt_give_a_warning_in_one_line(pixels, words):
    doubt = doubt_about(pixels, "add more")
    assert words in doubt
    assert "fewer than 32" in doubt
    assert doubt.endswith("; add more")
    assert "\n" not in doubt
