"""Why a worker failed: what Ray says, as one line. `test_pool` has real failures."""

import pytest

from pipeline.workers.causes import cause_of

NESTED = """The actor died because of an error raised in its creation task, \x1b[36mray::EncodeWorker()\x1b[39m
           ^^^^^^^^^^^
RuntimeError: The actor with name EncodeWorker failed to import on the worker:

\x1b[36mray::EncodeWorker.__init__()\x1b[39m (pid=1, ip=192.0.2.2)
  File "/site/pipeline/errors.py", line 3, in <module>
    import missing
  File "/data/set/missing.py", line 12, in <module>
    raise ImportError("first\\nsecond")
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ImportError: {message}"""


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (NESTED.format(message="first\nsecond"), "ImportError: first second (/data/set/missing.py, line 12)"),
        (NESTED.format(message="x" * 5000), f"ImportError: {'x' * 5000} (/data/set/missing.py, line 12)"),
        ("The actor died.\n\tclass_name: EncodeWorker\n\tpid: 7\n", "The actor died. class_name: EncodeWorker pid: 7"),
        ("\x1b[33m(raylet)\x1b[0m a line", "(raylet) a line"),
        ('ray::f()\n  File "a.py", line 1', "ray::f() File \"a.py\", line 1"),
        ("", "ValueError"),
    ],
)  # fmt: skip
def test_the_cause_is_one_whole_line(message, cause):
    assert cause_of(ValueError(message)) == cause
