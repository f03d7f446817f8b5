"""`clipsieve` and `python -m query.cli`: the command line, which imports nothing from the current folder."""

# nothing else yet: the current folder may be a downloaded data set with a file of any module's name
import os
import sys


def _without_current_folder(path: list[str]) -> list[str]:
    """A search path without the current folder, unless this package is in it or PYTHONPATH names it in full.

    `python -m` adds the current folder, and so does an empty entry of PYTHONPATH.
    """
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    except OSError:  # it no longer exists
        return path
    home = os.path.realpath(os.path.join(__file__, "..", "..", ".."))
    if here == home:
        return path
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]  # noqa: PTH117
    return [entry for entry in path if entry in named or os.path.realpath(entry) != here]


sys.path[:] = _without_current_folder(sys.path)

from query.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
