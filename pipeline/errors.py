"""Every error a user can meet, with its exit code.

    ClipsieveError                 1
    |- ConfigError                 2   a flag, a YAML key, an environment variable
    |- InputError                  3   images, captions, a model that cannot be loaded
    |  `- SourceUnavailable        3   a server or network disk that does not answer for now
    |- StoreError                  4   a store or an index that cannot be used
    |  |- FingerprintMismatch      4   two encoders in one store
    |  |- StoreLocked              4   another job owns the store
    |  `- UnfinishedStore          4   shards are missing, or the index is older than the store
    `- WorkerError                 5   a Ray worker failed for good

A message says what failed, where, what was expected, and what to do; the command line prints it as one line.
"""


class ClipsieveError(Exception):
    """Root of all errors that are told to the user as one line."""

    exit_code = 1


class ConfigError(ClipsieveError):
    """A setting is unknown, missing or out of its range."""

    exit_code = 2


class InputError(ClipsieveError):
    """What was given to work on cannot be used."""

    exit_code = 3


class SourceUnavailable(InputError):
    """What holds the images does not answer; nothing is wrong with them."""


class StoreError(ClipsieveError):
    """A store or an index on disk is missing, damaged or cannot be written."""

    exit_code = 4


class FingerprintMismatch(StoreError):
    """The store was written by another encoder."""


class StoreLocked(StoreError):
    """Another running job owns the store."""


class UnfinishedStore(StoreError):
    """The store lacks shards, or the index does not cover the store."""


class WorkerError(ClipsieveError):
    """A worker process failed more often than it may."""

    exit_code = 5


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line of 200 characters at most; its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
