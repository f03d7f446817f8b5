"""The grammar of filters. What it does not contain, such as functions and arithmetic, cannot be written."""

from functools import cache
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, on_one_line

if TYPE_CHECKING:
    from lark import Lark, Token, Tree
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

MAX_CHARACTERS = 10_000
AROUND = 30
"""Characters that an error shows on each side of its position."""

GRAMMAR = r"""
?any: all ("or"i all)*
?all: one ("and"i one)*
?one: "not"i one                                                    -> negation
    | "(" any ")"
    | operand                                                      -> alone
    | operand COMPARISON operand                                   -> comparison
    | operand "is"i [NOT] "null"i                                    -> is_null
    | operand [NOT] "between"i operand "and"i operand                -> between
    | operand [NOT] "in"i "(" literal ("," literal)* ")"            -> is_in
    | operand [NOT] (LIKE | ILIKE) TEXT ["escape"i TEXT]            -> like
?operand: NAME | QUOTED | literal
?literal: NUMBER | TEXT | TRUE | FALSE | NULL

COMPARISON: "==" | "!=" | "<>" | "<=" | ">=" | "=" | "<" | ">"
NUMBER: /([+-]\s*)?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?/i
TEXT: /'([^']|'')*'/
QUOTED: /"([^"]|"")*"/
NAME: /[^\W\d]\w*/i
NOT: "not"i
LIKE: "like"i
ILIKE: "ilike"i
TRUE: "true"i
FALSE: "false"i
NULL: "null"i
OR: "or"i
AND: "and"i
IS: "is"i
IN: "in"i
BETWEEN: "between"i
ESCAPE: "escape"i
%ignore /\s+/
"""

_EXPECTED = {
    "NAME": "a column",
    "NUMBER": "a number",
    "TEXT": "a text in single quotation marks",
    "TRUE": "true",
    "COMPARISON": "a comparison such as =",
    "LIKE": "LIKE",
    "BETWEEN": "BETWEEN",
    "IN": "IN",
    "NULL": "NULL",
    "AND": "AND",
    "OR": "OR",
    "ESCAPE": "ESCAPE",
    "COMMA": "a comma",
    "RPAR": '")"',
    "$END": "the end",
}
"""How an error calls the tokens that it expects."""


def parse(text: str) -> "Tree | Token":
    """The tree of a filter: nodes have the grammar's names, leaves are tokens with their positions.

    Raises:
        ConfigError: If the text is empty, too long, or not in the language.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    if not text.strip():
        raise ConfigError("where: the filter is empty; give a condition such as width > 512, or leave it out")
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"where: the filter has {len(text)} characters, {MAX_CHARACTERS} are allowed; shorten it")
    wrong = next((place for place, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
    if wrong is not None:
        raise fault(text, wrong, "this is not UTF-8; remove it")
    try:
        return _parser().parse(text)
    except UnexpectedToken as error:
        raise _unexpected(text, error) from None
    except UnexpectedCharacters as error:
        raise _unreadable(text, error) from None


def fault(text: str, position: int, message: str) -> ConfigError:
    """An error about a place in a filter.

    Args:
        text: The filter.
        position: Index of the character where the fault is.
        message: What is wrong there, and what to do.
    """
    start, end = max(0, position - AROUND), position + AROUND
    around = f"{'...' if start else ''}{text[start:end]}{'...' if end < len(text) else ''}"
    return ConfigError(f"where, character {position + 1} of `{on_one_line(around)}`: {message}")


def shortened(text: str) -> str:
    """A text from a filter as an error shows it."""
    return on_one_line(text if len(text) <= AROUND else f"{text[:AROUND]}...")


@cache
def _parser() -> "Lark":
    from lark import Lark

    # the basic lexer knows all keywords everywhere, so that `andx` is a name; LALR needs no recursion
    return Lark(GRAMMAR, parser="lalr", lexer="basic", start="any", propagate_positions=True, maybe_placeholders=True)


def _unexpected(text: str, error: "UnexpectedToken") -> ConfigError:
    token = error.token
    is_end = token.type == "$END"
    position = len(text.rstrip()) if is_end else token.start_pos
    accepted = error.accepts or {"$END"}  # after a whole condition, the parser has forgotten what could follow
    if token.type == "RPAR" and "$END" in accepted:
        return fault(text, position, "this parenthesis closes nothing; remove it")
    if "NAME" in accepted:
        accepted = accepted - {"NULL"}  # nothing equals null
    *words, last = [word for token, word in _EXPECTED.items() if token in accepted] or ['"("']
    expected = f"{', '.join(words)} or {last}" if words else last
    found = "the filter ends" if is_end else f"found `{shortened(token)}`"
    return fault(text, position, f"{found}, expected {expected}")


def _unreadable(text: str, error: "UnexpectedCharacters") -> ConfigError:
    position = error.pos_in_stream
    found = text[position]
    if found in "'\"":
        return fault(text, position, f"the quotation mark {found} that opens here is never closed")
    return fault(
        text,
        position,
        f"`{on_one_line(found)}` has no meaning in a filter; it knows = != < <= > >=, and, or, not, in, is null, like, "
        "between and parentheses",
    )
