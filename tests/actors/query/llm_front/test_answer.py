"""Texts to messages: one TXT record, strings that split no character, sizes as they are told."""

from __future__ import annotations

import dns.message
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.actors.query.llm_front import answer
from raydns.schemas import wire

from .harness import query


def text_of(message: bytes) -> list[bytes]:
    """The strings of the one TXT record."""
    parsed = dns.message.from_wire(message)
    assert len(parsed.answer) == 1
    rrset = parsed.answer[0]
    assert rrset.rdtype == dns.rdatatype.TXT
    assert len(rrset) == 1
    return list(rrset[0].strings)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=3000))
def test_strings(text: str) -> None:
    """Strings have at most 255 octets, are UTF-8 each, and give the text again when joined."""
    parts = answer.strings(text.encode())
    assert b"".join(parts).decode() == text
    for part in parts:
        assert 1 <= len(part) <= 255
        part.decode()


@given(st.binary(max_size=2000))
def test_strings_of_any_octets_end(data: bytes) -> None:
    """Even octets that are no UTF-8 come out whole, in finite time."""
    assert b"".join(answer.strings(data)) == data


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=600), st.integers(64, 500))
def test_cut(text: str, size_max: int) -> None:
    """A cut text fits, splits no character, and is a prefix with an ellipsis."""
    out = answer.cut(text, size_max)
    assert len(out.encode()) <= size_max
    if out != text:
        assert out.endswith(answer.MORE)
        assert text.startswith(out.removesuffix(answer.MORE))


@pytest.mark.parametrize(
    ("size", "strings", "message_size"),
    [(0, 1, 12 + 26 + 4 + 12 + 1), (255, 1, 310), (256, 2, 312), (1162, 5, 1221), (4096, 17, 4167)],
)
def test_sizes(size: int, strings: int, message_size: int) -> None:
    """4096 octets are 17 strings; 1162 fit an unsigned answer of 1232 octets with OPT (llm.md 1)."""
    asked = query("what.is.rust.llm.example.")
    found = answer.text_message(asked, "x" * size, 300, aa=True, size_max=4096)
    assert len(text_of(found.data)) == strings
    assert len(found.data) == message_size
    assert found.layout == wire.layout(found.data)
    if size == 1162:
        assert len(found.data) + 11 == 1232


def test_question_is_in_key_form() -> None:
    """ID 0, lower-cased question, no OPT: what the tiers below keep."""
    found = answer.text_message(query("WhAt.Is.rUsT."), "text", 7, aa=False, size_max=100)
    parsed = dns.message.from_wire(found.data)
    assert parsed.id == 0
    assert parsed.question[0].name.to_text() == "what.is.rust."
    assert parsed.edns == -1
    assert parsed.answer[0].ttl == 7
    assert wire.min_ttl(found.data, found.layout) == 7


def test_lone_surrogates_do_not_raise() -> None:
    """A text that is not quite Unicode becomes one that is."""
    found = answer.text_message(query("x."), "a\ud800b", 1, aa=False, size_max=100)
    assert text_of(found.data) == [b"a?b"]
