"""What a model said, made fit for a terminal, a script and a verifier: no control octets, no markdown, no tokens.

Invariants, held by property tests: the result has no character of a control category, no line break and no
run of spaces; every pattern is bounded, so that hostile text costs linear time.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

GUARD: Final = "answer: "

# ECMA-48: CSI with its parameters; OSC, DCS, PM, APC, SOS up to their terminator; any other escape pair.
_ESCAPES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,16}[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]{0,512}(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]{0,8}[0-~]?"
)
_THINKING: Final = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE: Final = re.compile(r"^[ \t]{0,8}(?:```|~~~)[^\n]{0,80}$", re.MULTILINE)
_HEADING: Final = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+", re.MULTILINE)
_QUOTE: Final = re.compile(r"^[ \t]{0,3}(?:>[ \t]?){1,8}", re.MULTILINE)
_BULLET: Final = re.compile(r"^[ \t]{0,12}[*+•‣◦▪][ \t]+", re.MULTILINE)
_RULE: Final = re.compile(r"^[ \t]{0,3}(?:-{3,32}|\*{3,32}|_{3,32})[ \t]*$", re.MULTILINE)
_LINK: Final = re.compile(r"!?\[([^\[\]\n]{0,200})\]\(([^()\s]{1,300})\)")
_STRONG: Final = re.compile(r"\*\*(?=\S)([^\n]{1,300}?)(?<=\S)\*\*")  # not __x__: Python's names look so
_EMPHASIS: Final = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,300}?)(?<=[^\s*])\*(?![\w*])")
_CODE: Final = re.compile(r"`{1,2}([^`\n]{1,300})`{1,2}")
_BREAKS: Final = re.compile(r"[\r\n\v\f\x85\u2028\u2029][\s\x85]*")
_SPACES: Final = re.compile(r"\s+")
_SEPARATORS: Final = re.compile(r"(?: ?/ ){2,}")

_FOLDS: Final[dict[int, str]] = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "‛": "'", "′": "'", "‹": "<", "›": ">", "´": "'",
        "“": '"', "”": '"', "„": '"', "‟": '"', "″": '"', "«": '"', "»": '"',
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "⁃": "-",
        "•": "-", "‣": "-", "◦": "-", "▪": "-", "·": "-", "…": "...",
        "→": "->", "←": "<-", "⇒": "=>", "↔": "<->", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "×": "x", "÷": "/",
        "°": " deg ", "€": "EUR", "£": "GBP", "©": "(c)", "®": "(R)", "™": "(TM)", "±": "+/-", "½": "1/2", "¼": "1/4",
        "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
        "đ": "d", "Đ": "D", "þ": "th", "Þ": "Th", "ð": "d", "Ð": "D", "ı": "i", "⁄": "/",
    }
)  # fmt: skip

# Records that verifiers look for at the start of a TXT record: SPF, DKIM, DMARC, STS ("v=…"), site verification,
# Microsoft's "MS=ms…", and ACME's dns-01 digest (RFC 8555 section 8.4: 43 characters of base64url) or its like.
_TOKENS: Final = re.compile(
    r"[\W_]{0,256}(?:v\s*=|[\w.-]{1,64}-(?:site-)?(?:domain-)?verif[\w-]{0,16}\s*[=:]|MS\s*=\s*ms|[\w+/=-]{32,}\s*\Z)",
    re.IGNORECASE,
)


def clean(text: str, *, ascii_only: bool = True, token_guard: bool = True) -> str:
    r"""The text on one line without anything that a terminal or a verifier would act on.

    Args:
        text: what a model wrote, whole or up to now.
        ascii_only: fold punctuation, Latin letters and symbols to ASCII and drop emoji, since ``dig`` prints other
            octets as ``\DDD``; letters of other scripts have no fold and stay as they are.
        token_guard: put ``answer: `` before what looks like a verification record.
    """
    text = _plain(_ESCAPES.sub("", _THINKING.sub("", text)))
    text = _BREAKS.sub(" / ", text.strip())
    if ascii_only:
        text = _folded(text)
    text = "".join(c for c in text if c.isascii() or unicodedata.category(c)[0] != "C" or c in "\t\n")
    text = "".join(c if c >= " " else " " for c in text if c != "\x7f")
    text = _SEPARATORS.sub(" / ", _SPACES.sub(" ", text)).strip()
    return guard(text) if token_guard else text


def guard(text: str) -> str:
    """The text, with ``answer: `` before it where it could pass for a verification record."""
    return GUARD + text if _TOKENS.match(text) else text


def _plain(text: str) -> str:
    """Without markdown: marks go, words stay."""
    text = _FENCE.sub("", text)
    text = _RULE.sub("", text)
    text = _HEADING.sub("", text)
    text = _QUOTE.sub("", text)
    text = _BULLET.sub("- ", text)
    text = _LINK.sub(lambda m: f"{m[1]} ({m[2]})" if m[1] and m[1] != m[2] else m[2], text)
    text = _STRONG.sub(r"\1", text)
    text = _EMPHASIS.sub(r"\1", text)
    return _CODE.sub(r"\1", text)


def _folded(text: str) -> str:
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text).translate(_FOLDS)
    if text.isascii():
        return text
    return "".join(c if c.isascii() else _fold(c) for c in text)


def _fold(char: str) -> str:
    """The ASCII spelling of a character; itself where it is a letter of a script that has none."""
    category = unicodedata.category(char)
    if category[0] == "Z":
        return " "
    decomposed = unicodedata.normalize("NFKD", char)
    plain = "".join(c for c in decomposed if c.isascii())
    if plain:
        return plain
    if category in {"So", "Sk", "Cs", "Co", "Cn", "Cf", "Cc"} or char in "\ufe0e\ufe0f":
        return ""
    return char
