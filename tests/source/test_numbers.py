"""Dates and sizes from outside that fit no column are unknown, wherever they come from."""

import os
import tempfile
from email.utils import formatdate
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.source.access import location, remote
from pipeline.source.entry import SourceFile
from pipeline.source.limits import known_size, known_time_ns
from tests.kit.jobs import Job
from tests.kit.sources import listed, tar_of
from tests.kit.web_server import Handler, serving

YEAR_NS = 31_556_952 * 10**9
LAST_NS = 2**63 - 1
DATES = {
    "1600": (-370 * YEAR_NS, 0),
    "1677": (-(2**63), -(2**63)),
    "1969": (-1, -1),
    "2262": (LAST_NS, LAST_NS),
    "2262, a moment later": (LAST_NS + 1, 0),
    "2400": (430 * YEAR_NS, 0),
}


@pytest.mark.parametrize("ns", [None, float("nan"), float("inf"), -float("inf"), 2**63, -(2**63) - 1, 1e300, 10**400])
def test_times_that_are_none(ns):
    assert known_time_ns(ns) == 0


@pytest.mark.parametrize("size", [None, -1, 2**63, float("nan"), float("inf"), 10**400, -(10**400)])
def test_sizes_that_are_none(size):
    assert known_size(size) == 0


def test_what_fits_is_kept():
    assert (known_time_ns(-5), known_time_ns(1.5e9), known_time_ns(LAST_NS)) == (-5, 1_500_000_000, LAST_NS)
    assert (known_size(0), known_size(2**63 - 1)) == (0, 2**63 - 1)


@pytest.fixture
def tmp_path(tmp_path):
    """A folder in memory, if there is one: disks cannot hold every date."""
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            yield Path(folder)
    except OSError:
        yield tmp_path


@pytest.fixture
def dated():
    """Gives a file a date, if the file system can hold it."""

    def date(path, time_ns):
        os.utime(path, ns=(0, time_ns))
        if path.stat().st_mtime_ns != time_ns:
            pytest.skip("this file system cannot hold such a date")

    return date


@pytest.mark.parametrize(("time_ns", "known"), DATES.values(), ids=DATES)
@pytest.mark.parametrize("kind", ["folder", "list", "tar"])
def test_files_of_any_date_are_planned_and_resumed(tmp_path, spec, dated, kind, time_ns, known):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"A")
    (tmp_path / "list.csv").write_text("path\nphotos/a.jpg\n")
    (tmp_path / "0.tar").write_bytes(tar_of({"a.jpg": b"A"}))
    source = tmp_path / {"folder": "photos", "list": "list.csv", "tar": "0.tar"}[kind]
    dated(source if kind == "tar" else tmp_path / "photos/a.jpg", time_ns)
    listing = listed(source)
    found = listing.files or list(listing)
    assert [(item.mtime_ns, item.num_bytes > 0) for item in found] == [(known, True)]
    job = Job(tmp_path / "store", spec)
    assert len(job.run(source)) == 1
    assert len(job.record.plans) == 1
    assert len(job.run(source)) == 1  # nothing looks changed
    assert len(job.record.plans) == 1


def test_an_earlier_plan_of_a_tar_holds_any_date():
    earlier = SourceFile.model_validate({"key": "0.tar", "uri": "file:///0.tar", "num_bytes": 1, "mtime_ns": 2**64})
    assert earlier == SourceFile(key="0.tar", uri="file:///0.tar", num_bytes=1, mtime_ns=0)


@pytest.mark.parametrize("values", [{"key": "a"}, {"uri": "file:///a"}, {"key": 1, "uri": "https://h/a?sig=1"}])
def test_a_damaged_plan_of_a_tar_is_refused(values):
    with pytest.raises(ValidationError):
        SourceFile.model_validate({"num_bytes": 1, "mtime_ns": 1, **values})


@pytest.mark.parametrize(
    ("date", "length", "expected"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", "10240", (10240, 1_445_412_480 * 10**9)),
        (formatdate(430 * 31_556_952, usegmt=True), "10240", (10240, 0)),
        ("Wed, 21 Oct 1515 07:28:00 GMT", "10240", (10240, 0)),
        ("Wed, 21 Oct 99999 07:28:00 GMT", "10240", (10240, 0)),
        ("yesterday", str(2**63), (0, 0)),
        ("", "1" + "0" * 19, (0, 0)),
    ],
)
def test_headers_of_web_servers(date, length, expected):
    class Site(Handler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Last-Modified", date)
            self.send_header("Content-Length", length)
            self.end_headers()

        do_GET = do_HEAD

    location._filesystem.cache_clear()
    with serving(Site) as url:
        assert location.examine(f"{url}/0.tar") == expected


@pytest.mark.parametrize(("time_ns", "size", "expected"), [
    (5, 7, (7, 5)), (-(2**62), 7, (7, 0)), (None, None, (0, 0)), (5, -1, (0, 5)),
])  # fmt: skip
def test_answers_of_object_stores(time_ns, size, expected):
    from pyarrow.fs import FileType

    class Info:
        type, base_name, mtime_ns = FileType.File, "a.jpg", time_ns

    Info.size = size
    found = remote.ArrowFiles(None, "")._found(Info)
    assert (found.num_bytes, found.mtime_ns) == expected
