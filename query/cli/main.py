"""The command line: finds the verb, reads its settings and runs it. Imports nothing heavy before the verb runs."""

import difflib
import re
import sys
from pathlib import Path

from pipeline import __version__
from pipeline.errors import ClipsieveError, ConfigError, on_one_line
from query.cli.verbs import COUNTING_MEMORY, GROUPS, REPLACED, RESUMING, VERBS, flags_of, module_of, settings_class

EXIT_CODES = "0 done, 1 other error, 2 settings, 3 input, 4 store or index, 5 workers, 6 gates, 130 interrupted"


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Every error a user can meet becomes one line and an exit code."""
    verb, argv = _split_verb(sys.argv[1:] if argv is None else argv)
    try:
        return _run(verb, argv)
    except ClipsieveError as error:
        _print_error(f"{error}{_strange_flags(verb, str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        kept = "what is done is kept: run the same command to resume"
        print(f"interrupted; {kept if verb in RESUMING else 'run the same command again'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 1
    except OSError as error:  # not handled closer to its cause
        _print_error(_described(error))
        return 1


def _print_error(text: str) -> None:
    print(f"error: {on_one_line(text)}", file=sys.stderr)


def _described(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.filename:
        return f"{text}: {error.filename}"
    # how Python's `tempfile` says that it found no folder, not even the current one
    return f"{text}; set TMPDIR to a folder that you can write" if "temporary directory" in text else text


def _split_verb(argv: list[str]) -> tuple[str, list[str]]:
    """Split the command line into the verb, of one or two words, and its arguments."""
    for length in (2, 1):
        if " ".join(argv[:length]) in VERBS:
            return " ".join(argv[:length]), argv[length:]
    return (argv[0], argv[1:]) if argv else ("--help", [])


def _run(verb: str, argv: list[str]) -> int:
    if verb in ("-h", "--help", "help"):
        print(_usage())
    elif verb in ("-V", "--version"):
        print(f"clipsieve {__version__}")
    elif verb in VERBS:
        _run_verb(verb, argv)
    elif (family := _family(verb)) and (not argv or argv[0] in ("-h", "--help", "help")):
        print(_usage_of_family(verb, family))
    else:
        asked = f"{verb} {argv[0]}" if family else verb
        if asked in REPLACED:
            raise ConfigError(f"`clipsieve {asked}` is gone; use {REPLACED[asked]}")
        near = difflib.get_close_matches(asked, family or VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(family or VERBS)}"
        raise ConfigError(f"unknown verb {asked!r}: {hint}")
    return 0


def _run_verb(verb: str, argv: list[str]) -> None:
    from pipeline.machine import let_threads_sleep, prepare_for_torch
    from pipeline.settings.load import load_settings, refuse_unwritable_outputs
    from pipeline.workers.surroundings import environment, python_environment

    _refuse_lost_folder()
    module = module_of(verb)
    settings = load_settings(settings_class(verb), verb, argv, module.EXAMPLES)
    refuse_unwritable_outputs(settings)
    if verb in COUNTING_MEMORY:
        let_threads_sleep()
    else:
        prepare_for_torch()
    with environment(**python_environment()):  # for the processes that the verb starts
        module.run(settings)


def _refuse_lost_folder() -> None:
    """Without a current folder no relative path has a meaning, and the libraries below fail in many ways."""
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError("the current folder no longer exists; change to one that does, for example `cd ~`") from error


def _strange_flags(verb: str, message: str) -> str:
    """Say whose flags a message names that the verb lacks: verbs share code, and so its messages."""
    # a command that is quoted whole names its own verb
    named = dict.fromkeys(re.findall(r"--[a-z][a-z0-9-]+", re.sub(r"`clipsieve [^`]*`", "", message)))
    own = flags_of(verb) if named and verb in VERBS else set()
    strange = []
    for flag in named.keys() - own:
        owners = [other for other in VERBS if flag in flags_of(other)]
        if owners:
            strange.append(f"{flag} belongs to clipsieve {', '.join(owners)}")
    return f" ({'; '.join(sorted(strange))})" if strange else ""


def _family(word: str) -> list[str]:
    """The verbs of two words that start with `word`."""
    return [verb for verb in VERBS if verb.startswith(f"{word} ")]


def _usage() -> str:
    groups = "\n\n".join(f"{title}:\n{_summaries(verbs)}" for title, verbs in GROUPS.items())
    return (
        "usage: clipsieve VERB [options]\n\n"
        "Find images with words: embed them with a pruned CLIP, then index, search and measure.\n\n"
        f"{groups}\n\n"
        "clipsieve VERB --help shows the options of a verb and examples.\n"
        "clipsieve completion bash|zsh|fish prints a script for TAB completion.\n\n"
        f"exit codes: {EXIT_CODES}"
    )


def _usage_of_family(word: str, family: list[str]) -> str:
    return (
        f"usage: clipsieve {word} {{{','.join(verb.split()[1] for verb in family)}}} [options]\n\n{_summaries(family)}"
    )


def _summaries(verbs: tuple[str, ...] | list[str]) -> str:
    return "\n".join(f"  {verb:<15} {module_of(verb).SUMMARY}" for verb in verbs)
