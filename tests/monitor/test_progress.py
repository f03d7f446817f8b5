"""Progress outside a terminal: whole lines with a time stamp, at tenths and at intervals."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.monitor import progress
from pipeline.monitor.progress import ProgressLine, Tick

ROOT = Path(__file__).resolve().parents[2]
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d) (.*)")


class Log(io.StringIO):
    """A log file that shows what has been flushed."""

    flushed = ""

    def flush(self):
        self.flushed = self.getvalue()

    @property
    def lines(self):
        assert all(letter == "\n" or letter.isprintable() for letter in self.flushed)
        found = [STAMP.fullmatch(line) for line in self.flushed.splitlines()]
        assert all(datetime.fromisoformat(match[1]).tzinfo for match in found)
        return [match[2] for match in found]

    def open(self, title):
        with redirect_stderr(self):
            return ProgressLine(title)


@pytest.fixture
def log():
    return Log()


def test_a_line_per_tenth(log):
    with log.open("embed") as line:
        for done in range(0, 1001, 5):
            line(Tick(done, 1000, done // 500, 50.0))
            assert len(log.lines) == done // 100 + 1  # at once, not at the end
    assert len(log.lines) == 11
    assert log.lines[3] == "embed: 300 of 1000 (30 %) images, 50.0 images/s, 0 failed, 0:00:14 left"
    assert log.lines[-1] == "embed: 1000 of 1000 (100 %) images, 50.0 images/s, 2 failed"


def test_a_run_that_goes_on_begins_where_it_is(log):
    with log.open("embed") as line:
        line(Tick(720, 1000, 0, 0.0))
        line(Tick(719, 1000, 0, 0.0))  # a shard was given to another worker
        line(Tick(730, 1000, 0, 0.0))
    assert [text.partition(" (")[0] for text in log.lines] == ["embed: 720 of 1000", "embed: 730 of 1000"]


def test_an_unknown_total(log):
    with log.open("embed") as line:
        line(Tick(100, None, 1, 25.0))
        assert log.lines == []
        line(Tick(200, None, 1, 25.0))
    assert log.lines == ["embed: 200 images, 25.0 images/s, 1 failed"]


def test_a_line_per_interval_even_without_news(log, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    with log.open("adapt") as line:
        wait_for(lambda: log.lines.count("adapt: starting") >= 2)
        line(Tick(1, None, 0, 1.0))
        wait_for(lambda: log.lines.count("adapt: 1 images, 1.0 images/s, 0 failed") >= 2)


def wait_for(is_true):
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_line_that_nobody_reads():
    file = Log()
    line = file.open("embed")
    file.close()
    with line:
        line(Tick(1, 1, 0, 1.0))


PROGRAM = (
    "from query.cli.console import Lines; from pipeline.monitor.progress import Tick\n"
    "with Lines('evaluate') as lines:\n"
    "    lines('none', Tick(5, 10, 0, 1.0)); lines('none', Tick(10, 10, 0, 1.0)); lines('fast', Tick(10, 10, 0, 1.0))"
)


def test_conditions_follow_one_another_in_a_log():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [STAMP.fullmatch(line)[2] for line in done.stderr.splitlines()]
    assert [line.partition(" (")[0] for line in lines] == ["none: 5 of 10", "none: 10 of 10", "fast: 10 of 10"]
    assert done.stdout == ""


def test_a_terminal_has_a_bar_that_is_refreshed_in_place():
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 1 << 16):
            shown += part
    except OSError:  # how a terminal ends
        pass
    assert process.wait() == 0
    assert b"\x1b[" in shown
    assert b"fast" in shown
    assert b"evaluate" not in shown  # no empty bar before the first step
