"""What a model said is fit for a terminal, a script and a verifier."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.actors.llm import hygiene


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("plain", "plain"),
        ("  a\n\nb\r\nc  ", "a / b / c"),
        ("a\tb   c", "a b c"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("\x9b31mred", "red"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("nul\x00bel\x07del\x7f", "nul bel del"),
        ("bidi \u202eevil\u202c zero\u200bwidth", "bidi evil zerowidth"),
        ("# Title\n\n- one\n* two\n> said", "Title / - one / - two / said"),
        ("**bold** and *soft* and `code`", "bold and soft and code"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("see [docs](https://example.org/a)", "see docs (https://example.org/a)"),
        ("2 * 3 * 4 = 24, a*b*c", "2 * 3 * 4 = 24, a*b*c"),
        ("__init__ and snake_case_name", "__init__ and snake_case_name"),
        ("“quoted” – it’s… €5 • x", '"quoted" - it\'s... EUR5 - x'),
        ("Zürich, Łódź, straße, cafe\u0301", "Zurich, Lodz, strasse, cafe"),
        ("ok 👍🏽 done ✅", "ok done"),
        ("日本語", "日本語"),
        ("<think>secret\nthought</think>Answer", "Answer"),
        ("<think>never ends", ""),
        ("", ""),
    ],
)
def test_table(raw: str, clean: str) -> None:
    """Escapes, markdown, controls and typography go; words stay."""
    assert hygiene.clean(raw) == clean


def test_utf8_where_it_is_wanted() -> None:
    """Without folding, letters and emoji stay and only control characters go."""
    assert hygiene.clean("naïve – 👍 \x1b[0m\u202e", ascii_only=False) == "naïve – 👍"


@given(st.text(alphabet=st.characters(codec=None), max_size=400), st.booleans())
def test_no_controls_ever(text: str, ascii_only: bool) -> None:
    """Whatever comes in, no control character, line break or run of spaces comes out."""
    out = hygiene.clean(text, ascii_only=ascii_only)
    assert not [c for c in out if unicodedata.category(c)[0] == "C" and c.isascii()]
    assert not [c for c in out if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert "  " not in out
    assert out == out.strip()


@given(st.text(alphabet="*_`#>[]()\x1b\x9b~<think>/ \nab", max_size=300))
def test_marks_without_sense(text: str) -> None:
    """Piles of markup never raise and leave no escape."""
    assert "\x1b" not in hygiene.clean(text)


@pytest.mark.parametrize("piece", ["*a ", "**a ", "`a ", "[a](", "\x1b]", "<think>", "a\n", "\x9b", "> ", "*"])
def test_hostile_text_costs_linear_time(piece: str) -> None:
    """16 KB made to upset a pattern is cleaned in well under a second."""
    text = (piece * 16_384)[:16_384]
    start = time.perf_counter()
    hygiene.clean(text)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    "token",
    [
        "v=spf1 include:_spf.example.org ~all",
        "V=DMARC1; p=none",
        "v = DKIM1",
        '"v=spf1 -all"',
        "google-site-verification=abc123",
        "google-site-verification: abc123",
        "facebook-domain-verification=xyz",
        "MS=ms12345678",
        "gfj9Xq-Rg85nM_xk2vWpXJbK3T0qYyLr5cQ1dHhUe7s",
        "  v=spf1",
    ],
)
def test_token_guard(token: str) -> None:
    """Nothing that a verifier looks for stands at the start of an answer."""
    assert hygiene.clean(token).startswith("answer: ")
    assert not hygiene.clean(token, token_guard=False).startswith("answer: ")


@pytest.mark.parametrize("text", ["Version 2 is out.", "velocity v = d / t", "Paris", "It uses verification."])
def test_token_guard_leaves_prose(text: str) -> None:
    """Ordinary sentences are not prefixed."""
    assert hygiene.clean(text) == text


@given(st.from_regex(r"(v=|MS=ms)[a-z0-9 =]{0,40}", fullmatch=True), st.sampled_from(["", "**", "\x1b[0m", "\n", '"']))
def test_token_guard_cannot_be_hidden(token: str, cover: str) -> None:
    """Markup around a token does not get it past the guard."""
    assert hygiene.clean(cover + token + cover).startswith("answer: ")
