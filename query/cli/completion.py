"""`clipsieve completion`: a static script, so that TAB does not start Python."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from query.settings import CompletionSettings

SUMMARY = "print a script for TAB completion"
EXAMPLES = (
    '  eval "$(clipsieve completion bash)"                                 # in ~/.bashrc\n'
    '  eval "$(clipsieve completion zsh)"                                  # in ~/.zshrc, after compinit\n'
    "  clipsieve completion fish > ~/.config/fish/completions/clipsieve.fish"
)
SETTINGS = "query.settings:CompletionSettings"


def run(settings: "CompletionSettings") -> None:
    """Print the script."""
    import shtab

    print(shtab.complete(command_line(), settings.shell))


def command_line() -> "ArgumentParser":
    """A parser that describes all verbs, for completion only."""
    import shtab

    from pipeline.settings.flags import FlagParser
    from pipeline.settings.load import fill_parser
    from query.cli.verbs import VERBS, module_of, settings_class

    root = FlagParser(prog="clipsieve", add_help=True)
    places = {"": root.add_subparsers()}
    for verb in VERBS:
        family, _, word = verb.rpartition(" ")
        if family not in places:
            places[family] = places[""].add_parser(family, help=f"clipsieve {family} --help").add_subparsers()
        parser = places[family].add_parser(word, help=module_of(verb).SUMMARY)
        fill_parser(parser, settings_class(verb))
        for action in parser._actions:
            if action.metavar in ("PATH", "SOURCE", "STORE", "GRID"):
                action.complete = shtab.FILE
    return root
