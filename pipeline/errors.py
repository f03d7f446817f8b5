"""Every error that a user can see, with its exit code.

    ClipsieveError                 1
    |- ConfigError                 2   a flag, a YAML key, an environment variable
    |- InputError                  3   images, captions, a model that cannot be loaded
    |  `- SourceUnavailable        3   a server or network disk that is not responding
    |- StoreError                  4   a store or an index that cannot be used
    |  |- FingerprintMismatch      4   two encoders in one store
    |  |- StoreLocked              4   another job owns the store
    |  |- UnfinishedStore          4   shards are missing, or the index is older than the store
    |  `- NotProven                4   the index does not reach the recall that was asked for
    |- WorkerError                 5   a Ray worker failed for good
    `- GateFailed                  6   a result is outside of its bounds

A message says what failed, where, what was expected, and what to do; the command line prints it as one line.
"""


class ClipsieveError(Exception):
    """Root of all errors that are shown to the user as one line."""

    exit_code = 1


class ConfigError(ClipsieveError):
    """A setting is unknown, missing or out of range."""

    exit_code = 2


class InputError(ClipsieveError):
    """The input (images, captions or a model) cannot be used."""

    exit_code = 3


class SourceUnavailable(InputError):
    """The server or disk with the images is not responding. The images themselves may be fine."""


class StoreError(ClipsieveError):
    """A store or index on disk is missing, damaged or cannot be written."""

    exit_code = 4


class FingerprintMismatch(StoreError):
    """The store was written with another encoder."""


class StoreLocked(StoreError):
    """Another running job owns the store."""


class UnfinishedStore(StoreError):
    """The store is missing shards, or the index does not cover the store."""


class NotProven(StoreError):
    """The index does not reach the recall that was asked for, or it could not be measured."""


class WorkerError(ClipsieveError):
    """A worker process failed too many times."""

    exit_code = 5


class GateFailed(ClipsieveError):
    """Results are complete and written, and at least one of them is outside of its bounds."""

    exit_code = 6


def on_one_line(text: object) -> str:
    """A text, such as an error, as one line that is safe to print: what is not printable is escaped, as in `repr`.

    Names of files can hold line breaks and the codes that control a terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def first_line(error: BaseException) -> str:
    """First line of another library's error message, at most 200 characters; the error's type if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
