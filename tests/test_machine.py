"""The number of usable cores."""

import os

import pytest

from pipeline import machine

PRESENT = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", PRESENT), ("50000 100000", 1), ("100000 100000", 1), ("99900000 100000", PRESENT)],
)
def test_a_control_group_of_version_2_limits_the_cores(tmp_path, monkeypatch, text, cores):
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    monkeypatch.setattr(machine, "CPU_MAX", tmp_path / "cpu.max")
    assert machine.num_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, PRESENT), (150_000, min(2, PRESENT)), (20_000, 1)])
def test_a_control_group_of_version_1_limits_the_cores(tmp_path, monkeypatch, quota, cores):
    paths = [tmp_path / "quota", tmp_path / "period"]
    for path, value in zip(paths, (quota, 100_000), strict=True):
        path.write_text(f"{value}\n")
    monkeypatch.setattr(machine, "CPU_MAX", tmp_path / "none")
    monkeypatch.setattr(machine, "CPU_QUOTA_AND_PERIOD", paths)
    assert machine.num_cores() == cores


def test_without_control_groups_all_cores_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPU_MAX", tmp_path / "none")
    monkeypatch.setattr(machine, "CPU_QUOTA_AND_PERIOD", [tmp_path / "none", tmp_path / "none"])
    assert machine.num_cores() == PRESENT
