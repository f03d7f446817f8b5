"""What a store in one precision answers to another one, and to calibrations: at once, before Ray or the model."""

import shutil

import pytest

from pipeline.dry_run import estimate
from pipeline.embedding import embed
from pipeline.errors import ConfigError, FingerprintMismatch, StoreError
from pipeline.settings.embed import EmbedSettings
from pipeline.store.layout import Store
from query.cli.main import main
from tests.kit.no_workers import Started, refuse_workers
from tests.kit.plain_embed import embed_plainly

no_workers = pytest.fixture(autouse=True)(refuse_workers)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, photos, tiny_model):
    """Stores in two precisions. Read-only."""
    root = tmp_path_factory.mktemp("precisions")
    return {precision: embed_plainly(photos, root / precision, tiny_model, precision) for precision in ("fp32", "int8")}


@pytest.fixture
def settings_of(stores, photos, tiny_model, tmp_path):
    """Makes settings of a run on a copy of the store in a precision."""

    def settings(begun, **changes):
        out = tmp_path / "store"
        if begun and not out.exists():
            shutil.copytree(stores[begun].root, out)
        return EmbedSettings(source=photos, out=out, model=tiny_model, **changes)

    return settings


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("begun", "asked"),
    [("fp32", "int8"), ("fp32", "8bit"), ("fp32", "bf16"), ("int8", "fp32"), ("int8", "bf16"), ("int8", "fp8")],
)
def test_another_precision_is_refused_in_one_line_that_names_both(settings_of, begun, asked):
    settings = settings_of(begun, precision=asked)
    before = files_of(settings.out)
    for refuse in (embed, estimate):
        with pytest.raises(FingerprintMismatch) as raised:
            refuse(settings)
        assert str(raised.value) == (
            f"the store {settings.out} was begun in {begun}, but this run asks for --precision {asked}; leave out "
            f"--precision to go on in {begun}, or choose another --out"
        )
    assert files_of(settings.out) == before


@pytest.mark.parametrize("asked", ["auto", "int8", "8bit"])
def test_the_precision_of_the_store_is_left_to_its_encoder(settings_of, asked):
    with pytest.raises(Started):  # the last run did not record the files of the model
        embed(settings_of("int8", precision=asked))


@pytest.mark.parametrize("content", [None, b"torn"], ids=["missing", "damaged"])
def test_a_lost_calibration_is_refused_and_another_copy_puts_it_back(settings_of, stores, content, capsys):
    settings, given = settings_of("int8", precision="auto"), stores["int8"].calibration_path
    kept = Store(settings.out).calibration_path
    kept.unlink()
    if content:
        kept.write_bytes(content)
    for refuse in (embed, estimate):
        with pytest.raises(StoreError, match=rf"{kept} is .*; restore it from a backup, or run the same embed command"):
            refuse(settings)
    again = settings_of("int8", precision="int8", calibration=given)
    assert "encoder" in estimate(again)["run"]
    assert not kept.exists() or kept.read_bytes() == content  # a dry run writes nothing
    with pytest.raises(Started):
        embed(again)
    assert kept.read_bytes() == given.read_bytes()


def test_a_calibration_that_is_not_the_store_s_own_is_refused(settings_of, stores, tmp_path, photos, tiny_model):
    few = shutil.copytree(photos / "more", tmp_path / "few")
    other = embed_plainly(few, tmp_path / "other", tiny_model, "int8").calibration_path
    settings = settings_of("int8", calibration=other)
    with pytest.raises(FingerprintMismatch, match=r"has the hash \w{16}, but the store .* was made with \w{16}"):
        embed(settings)
    assert Store(settings.out).calibration_path.read_bytes() == stores["int8"].calibration_path.read_bytes()


def test_calibrations_are_for_int8_alone(settings_of, stores, photos, tmp_path, capsys):
    given = stores["int8"].calibration_path
    for begun in (None, "fp32"):
        with pytest.raises(ConfigError, match=r"only int8 uses a calibration, but this run's precision is \w+; give"):
            embed(settings_of(begun, calibration=given))
    argv = ["embed", str(photos), "--out", str(tmp_path / "new"), "--calibration", str(given), "--precision"]
    for precision in ("fp32", "bf16", "fp8"):
        assert main([*argv, precision]) == 2
        assert f"only int8 uses a calibration, not {precision}; give --precision int8, or" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_dry_run_in_int8_writes_nothing(settings_of, make_image, tmp_path):
    found = estimate(settings_of(None, precision="int8"))
    assert ", int8)" in found["run"]["encoder"]
    assert "fewer than 32" in found["run"]["warning"]
    assert not (tmp_path / "store").exists()
