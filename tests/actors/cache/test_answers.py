"""What answers are worth: checks, kinds, TTLs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.actors.cache.answers import Kind, aged, clamped, judge
from raydns.actors.cache.settings import Settings
from raydns.schemas import dns, names, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem
from raydns.schemas.errors import MessageError

from .world import failure, message, negative, positive, record, soa, ttls

SETTINGS = Settings()
QUESTION = names.from_text("www.example.") + b"\x00\x01\x00\x01"


def test_a_positive_answer_lives_as_long_as_its_shortest_record() -> None:
    """The TTL is the smallest of all records, and not more than the query actor allows."""
    chain = [record(None, 5, 30, names.from_text("a.example.")), record("a.example.", 1, 300, bytes(4))]
    item = AnswerItem(0, message("www.example.", answer=chain), AnswerFlag.SHAREABLE, fresh_s=300)
    assert judge(item, QUESTION, SETTINGS)[:2] == (Kind.POSITIVE, 30)
    assert judge(positive("www.example.", 300, fresh_s=10), QUESTION, SETTINGS).ttl == 10


def test_a_negative_answer_lives_by_its_soa() -> None:
    """RFC 2308 section 5: min(SOA TTL, MINIMUM), bounded by negative_ttl_max, and the SOA's own TTL says so."""
    verdict = judge(negative("www.example.", 600, 60), QUESTION, SETTINGS)
    assert verdict[:2] == (Kind.NEGATIVE, 60)
    assert ttls(AnswerItem(0, verdict.message)) == [60]
    assert judge(negative("www.example.", 20, 60), QUESTION, SETTINGS).ttl == 20
    assert judge(negative("www.example.", 90000, 90000), QUESTION, SETTINGS).ttl == SETTINGS.negative_ttl_max
    nodata = judge(negative("www.example.", rcode=0), QUESTION, SETTINGS)
    assert nodata[:2] == (Kind.NEGATIVE, 60)


def test_a_negative_answer_without_soa_is_not_kept() -> None:
    """RFC 2308 section 5: without an SOA there is no time for which it might be kept."""
    for body in (
        message("www.example.", rcode=3),
        message("www.example.", authority=[record("example.", 2, 300, names.from_text("ns."))]),
        message("www.example.", answer=[record(None, 5, 300, names.from_text("a.example."))]),
    ):
        item = AnswerItem(0, body, AnswerFlag.SHAREABLE, fresh_s=300)
        assert judge(item, QUESTION, SETTINGS)[:2] == (Kind.PASSED, 0)


def test_a_chain_that_ends_in_nothing_is_negative() -> None:
    """A CNAME whose target does not exist lives by the shorter of the CNAME and the SOA rule."""
    body = message(
        "www.example.",
        answer=[record(None, 5, 30, names.from_text("a.example."))],
        authority=[soa("example.", 600, 60)],
        rcode=3,
    )
    item = AnswerItem(0, body, AnswerFlag.SHAREABLE, fresh_s=300)
    assert judge(item, QUESTION, SETTINGS)[:2] == (Kind.NEGATIVE, 30)


@pytest.mark.parametrize(
    "flag", [AnswerFlag.AUTHORITATIVE, AnswerFlag.LOCAL_FAILURE, AnswerFlag.RETRY, AnswerFlag.MORE]
)
def test_marked_answers_are_never_kept(flag: int) -> None:
    """Authoritative data, failures of our own, RETRY and parts of a stream pass through."""
    item = positive("www.example.", flags=int(AnswerFlag.SHAREABLE | flag))
    assert judge(item, QUESTION, SETTINGS)[:2] == (Kind.PASSED, 0)


def test_truncated_and_unshareable_answers_are_never_kept() -> None:
    """TC and this-slot-only answers pass through."""
    body = message("www.example.", answer=[record(None, 1, 300, bytes(4))], flags=dns.TC)
    assert judge(AnswerItem(0, body, 1, fresh_s=300), QUESTION, SETTINGS).kind == Kind.PASSED
    assert judge(positive("www.example.", flags=0), QUESTION, SETTINGS).kind == Kind.PASSED


@pytest.mark.parametrize("rcode", [1, 2, 4, 5, 6, 9])
def test_every_other_response_code_is_a_failure(rcode: int) -> None:
    """What is neither NOERROR nor NXDOMAIN is remembered as RFC 9520 says, not by TTL."""
    assert judge(failure("www.example.", rcode), QUESTION, SETTINGS)[:2] == (Kind.FAILURE, 0)


def test_bounds_of_ttls_are_applied_to_the_message_too() -> None:
    """ttl_min raises, ttl_max lowers, and a TTL with the top bit set is 0 (RFC 2181 section 8)."""
    bounds = replace(SETTINGS, ttl_min=60, ttl_max=600)
    low = judge(positive("www.example.", 5), QUESTION, bounds)
    assert (low.ttl, ttls(AnswerItem(0, low.message))) == (60, [60])
    high = judge(positive("www.example.", 5000), QUESTION, bounds)
    assert (high.ttl, ttls(AnswerItem(0, high.message))) == (600, [600])
    top = judge(positive("www.example.", 2**31 + 5, fresh_s=600), QUESTION, SETTINGS)
    assert (top.ttl, ttls(AnswerItem(0, top.message))) == (0, [0])
    # Who answered wants it for less: no lower bound overrules that.
    assert judge(positive("www.example.", 300, fresh_s=0), QUESTION, bounds).ttl == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(12),
        message("other.example."),
        message("www.example.", 28),
        message("www.example.", answer=[record(None, 1, 300, bytes(4))])[:-1],
        message("www.example.") + b"x",
        message("www.example.", authority=[record("example.", 6, 60, bytes(3))]),
        message("www.example.", authority=[record(".", 41, 0, b"")]),
    ],
)
def test_wrong_messages_are_refused(body: bytes) -> None:
    """Short, torn, for another name or type, with an OPT or a broken SOA: MessageError, so SERVFAIL and not kept."""
    with pytest.raises(MessageError):
        judge(AnswerItem(0, body, AnswerFlag.SHAREABLE, fresh_s=300), QUESTION, SETTINGS)


def test_what_is_kept_has_id_0_and_the_key_form_of_the_name() -> None:
    """Case and ID of whoever asked first must not reach others."""
    asked = bytearray(positive("www.example.").message)
    asked[0:2] = b"\x12\x34"
    asked[13:16] = b"wWw"
    verdict = judge(
        positive("www.example.", flags=1) if False else AnswerItem(0, bytes(asked), 1, fresh_s=9), QUESTION, SETTINGS
    )
    assert verdict.message == positive("www.example.").message


@given(st.binary(max_size=120), st.integers(0, 3), st.integers(0, 3))
def test_any_octets_are_judged_or_refused(tail: bytes, answers: int, authority: int) -> None:
    """Whatever a query actor sends, judging ends with a verdict or a MessageError."""
    head = bytearray(message("www.example.") + tail)
    head[7], head[9] = answers, authority
    try:
        verdict = judge(AnswerItem(0, bytes(head), 1, fresh_s=300), QUESTION, SETTINGS)
    except MessageError:
        return
    assert wire.layout(verdict.message) == verdict.layout
    assert verdict.ttl <= SETTINGS.ttl_max


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5), st.integers(0, 100_000))
def test_ageing_lowers_every_ttl_and_never_below_zero(values: list[int], age: int) -> None:
    """After ``age`` seconds each TTL is lower by ``age``, or 0; nothing else changes."""
    body = message("www.example.", answer=[record(None, 1, ttl, bytes(4)) for ttl in values])
    layout = wire.layout(body)
    old = aged(body, layout, age)
    assert ttls(AnswerItem(0, old)) == [max(ttl - age, 0) for ttl in values]
    assert clamped(old, layout, 7, 7) == clamped(body, layout, 7, 7)
