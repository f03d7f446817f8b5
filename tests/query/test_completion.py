"""TAB in bash, zsh and fish: the scripts complete verbs, flags, choices and files."""

import shutil
import subprocess

import pytest

from query.cli.main import main

LINES = [
    ("clipsieve em", {"embed"}),
    ("clipsieve bench ", {"model", "gpu"}),
    ("clipsieve embed photos --precis", {"--precision"}),
    ("clipsieve embed photos --precision ", {"auto", "fp32", "bf16", "fp16", "int8", "fp8", "8bit"}),
    ("clipsieve bench model --device cu", {"cuda"}),
    ("clipsieve search store --json", {"--json", "--json-file"}),
    ("clipsieve completion ", {"bash", "zsh", "fish"}),
    ("clipsieve verify some", {"some-store"}),
]


@pytest.fixture
def script(tmp_path, capsys):
    """Writes the script of a shell next to a file `some-store`; skips the test if the shell is not installed."""

    def write(shell):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        assert main(["completion", shell]) == 0
        path = tmp_path / f"clipsieve.{shell}"
        path.write_text(capsys.readouterr().out)
        (tmp_path / "some-store").touch()
        return path

    return write


def ask(shell, program, folder, *more):
    command = [shell, *more, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_bash(script, line, expected, tmp_path):
    path = script("bash")
    words = " ".join(f"'{word}'" for word in line.split(" "))
    program = f"source {path}; COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); "
    program += "$(complete -p clipsieve | grep -o '_shtab[a-z_]*'); printf '%s\\n' \"${COMPREPLY[@]}\""
    assert set(ask("bash", program, tmp_path, "--norc").split()) == expected


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish(script, line, expected, tmp_path):
    path = script("fish")
    answers = ask("fish", f"source {path}; complete -C '{line}'", tmp_path, "--no-config")
    assert {answer.split("\t")[0] for answer in answers.splitlines()} == expected


# zsh completes only at a terminal: this opens one, and binds a key that prints the completed line
ZSH = """
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal 'PS1=; autoload -Uz compinit; compinit -u -d dump; eval "$(cat clipsieve.zsh)"'
zpty -w terminal 'show() { print -r -- "<$BUFFER>"; BUFFER= }; zle -N show; bindkey "^X" show; echo rea""dy'
zpty -r terminal answer '*ready*'
complete() {
  zpty -w -n terminal "$1"$'\\t\\x18'
  zpty -r terminal answer '*<*>*'
  print -r -- "${${answer##*<}%>*}"
}
"""


def test_zsh(script, tmp_path):
    script("zsh")
    lines = {
        "clipsieve em": "clipsieve embed ",
        "clipsieve bench mo": "clipsieve bench model ",
        "clipsieve embed photos --precis": "clipsieve embed photos --precision ",
        "clipsieve embed photos --precision fp3": "clipsieve embed photos --precision fp32 ",
        "clipsieve completion f": "clipsieve completion fish ",
        "clipsieve verify some": "clipsieve verify some-store ",
    }
    program = "\n".join([ZSH, *[f"complete '{line}'" for line in lines]])
    assert ask("zsh", program, tmp_path, "-f").splitlines() == list(lines.values())
