"""What tests need besides the packages: skipped without it, unless the machine promises to have it."""

import os
from typing import NoReturn

import pytest

NO_SKIPS = "CLIPSIEVE_NO_SKIPS"
"""Set to 1 where nothing may be missing, so that a forgotten installation is not taken for a success."""


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the running test or module for lack of something, or fail where nothing may be skipped."""
    if os.environ.get(NO_SKIPS) == "1":
        pytest.fail(f"{reason}; {NO_SKIPS}=1 allows no skips", pytrace=False)
    pytest.skip(reason, allow_module_level=True)
