r"""Master-file text to entries of tokens, each with its place (RFC 1035 section 5.1).

An entry is one logical line: parentheses continue it, a semicolon starts a comment, quotes hold blanks. Tokens stay
as they were written, quotes and escapes included: a token that begins with ``"`` was quoted. Most lines hold none
of ``;"()\`` and are split by ``str.split``; columns are computed only when an error asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

# Blanks other than space and tab are no blanks in a master file: such lines are not left to ``str.split``.
_SPECIAL: Final = re.compile(r'[;"()\\]|[^\t\r -~]')
# A quote right behind '=' belongs to its token: alpn="h2,h3" (RFC 9460 section 2.1).
_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t\r]+)
      | (?P<comment>;.*)
      | (?P<open>\() | (?P<close>\))
      | (?P<quoted>"(?:[^"\\]|\\.)*")
      | (?P<word>(?:\\[^\n]|[^ \t\r;()"\\]|(?<==)"(?:[^"\\]|\\.)*")+)
      | (?P<other>.)""",
    re.VERBOSE,
)
_WORD: Final = re.compile(r"\S+")

Complain = Callable[[int, int, str, str, str], None]
"""line, column, message, found, expected"""


class Entry:
    """One logical line."""

    __slots__ = ("_places", "_raw", "indented", "line", "tokens")

    def __init__(
        self, line: int, *, indented: bool, tokens: list[str], raw: str, places: list[tuple[int, int]] | None
    ) -> None:
        self.line = line
        """Number of its first physical line, from 1."""
        self.indented = indented
        """It begins with a blank: the owner is the last one stated."""
        self.tokens = tokens
        self._raw = raw
        self._places = places

    def place(self, index: int) -> tuple[int, int]:
        """Line and column (from 1) of a token; behind the last one for an index that is too high."""
        places = self._places
        if places is None:
            places = self._places = [(self.line, m.start() + 1) for m in _WORD.finditer(self._raw)]
        if index < len(places):
            return places[index]
        if not places:
            return self.line, 0
        line, column = places[-1]
        return line, column + len(self.tokens[-1])


def entries(text: str, complain: Complain) -> Iterator[Entry]:
    """The entries of a file; what is broken is told to ``complain``, and reading goes on behind it."""
    special = _SPECIAL.search
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if special(line) is None:
            tokens = line.split()
            if tokens:
                yield Entry(number, indented=line[0] in " \t", tokens=tokens, raw=line, places=None)
            continue
        entry = _long_entry(number, line, lines, complain)
        if entry is not None:
            yield entry


def _long_entry(number: int, line: str, lines: Iterator[tuple[int, str]], complain: Complain) -> Entry | None:
    tokens: list[str] = []
    places: list[tuple[int, int]] = []
    first = number
    opened: list[tuple[int, int]] = []
    intact = True
    indented = line[:1] in {" ", "\t"}
    while True:
        for match in _TOKEN.finditer(line.rstrip("\r")):
            kind = match.lastgroup
            at = (number, match.start() + 1)
            if kind in {"word", "quoted"}:
                tokens.append(match.group())
                places.append(at)
            elif kind == "open":
                opened.append(at)
            elif kind == "close":
                if opened:
                    opened.pop()
                else:
                    complain(*at, "a closing parenthesis without an opening one", ")", "")
                    intact = False
            elif kind == "other":
                _explain(match.group(), at, complain)
                intact = False
                break
        if not opened:
            break
        following = next(lines, None)
        if following is None:
            complain(*opened[-1], "a parenthesis that is never closed", "(", "a ')' before the end of the file")
            return None
        number, line = following
    if not tokens or not intact:
        return None
    return Entry(first, indented=indented, tokens=tokens, raw="", places=places)


def _explain(character: str, at: tuple[int, int], complain: Complain) -> None:
    if character == '"':
        complain(*at, "a quoted string that does not end on its line", '"', "a closing quote")
    elif character == "\\":
        complain(*at, "a backslash at the end of a line", "\\", "a character or three digits behind it")
    else:
        complain(*at, "a character that cannot stand here", character, "")
