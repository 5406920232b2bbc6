"""The batch: what goes in comes out, and whatever else comes in is a BatchError."""

from __future__ import annotations

import contextlib
import random
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.schemas import batch, facts
from raydns.schemas.batch import AnswerItem, QueryItem, Room, RoomStamp
from raydns.schemas.errors import BatchError

# Two busy cores: how long one example takes proves nothing.
settings.register_profile("raydns", deadline=None)
settings.load_profile("raydns")


def unsigned(bits: int) -> st.SearchStrategy[int]:
    """Unsigned integers of that many bits."""
    return st.integers(0, (1 << bits) - 1)


QUERIES = st.builds(
    QueryItem,
    slot=unsigned(32),
    message=st.binary(max_size=300),
    deadline_ms=unsigned(32),
    flags=unsigned(16),
    transport=unsigned(8),
    scope=unsigned(8),
    source=st.binary(min_size=16, max_size=16),
    source_port=unsigned(16),
    destination=st.binary(min_size=16, max_size=16),
    destination_port=unsigned(16),
    class_id=unsigned(16),
    view_id=unsigned(16),
    rights=unsigned(16),
    class_version=unsigned(64),
    ring_version=unsigned(64),
    state_version=unsigned(64),
    ring_hash=unsigned(64),
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    trace_flags=unsigned(8),
    queries_left=unsigned(16),
    octets_left=unsigned(32),
    cname_left=unsigned(8),
    tsig_key=st.binary(max_size=255),
    identity=st.binary(max_size=255),
)
ANSWERS = st.builds(
    AnswerItem,
    slot=unsigned(32),
    message=st.binary(max_size=300),
    flags=unsigned(16),
    scope=unsigned(8),
    fresh_s=unsigned(32),
    stale_s=unsigned(32),
    began=unsigned(64),
    ring_version=unsigned(64),
    layout=st.binary(max_size=60),
    facts=st.binary(max_size=60),
    rooms=st.binary(max_size=60),
    ede=st.integers(-1, 32767),
    ede_text=st.text(max_size=60),
)


@given(st.lists(QUERIES, max_size=5))
def test_queries_round_trip(items: list[QueryItem]) -> None:
    """Every field of every query survives."""
    data = batch.encode_queries(items)
    assert batch.kind_of(data) == batch.Kind.QUERIES
    assert batch.decode_queries(data) == items


@given(st.lists(ANSWERS, max_size=5))
def test_answers_round_trip(items: list[AnswerItem]) -> None:
    """Every field of every answer survives; EXTRA-TEXT is cut at 255 octets between characters."""
    data = batch.encode_answers(items)
    assert batch.kind_of(data) == batch.Kind.ANSWERS
    back = batch.decode_answers(data)
    for before, after in zip(items, back, strict=True):
        assert len(after.ede_text.encode()) <= 255
        if len(before.ede_text.encode()) <= 255:
            assert after == before
        else:
            assert before.ede_text.startswith(after.ede_text)
            assert len(after.ede_text.encode()) > 251
            after.ede_text = before.ede_text
            assert after == before


def test_text_that_is_none_is_replaced() -> None:
    """A lone surrogate in EXTRA-TEXT does not stop the batch."""
    (item,) = batch.decode_answers(batch.encode_answers([AnswerItem(1, b"m", ede=0, ede_text="a\ud800b")]))
    assert item.ede_text == "a?b"


def test_layout_is_as_documented() -> None:
    """One query and one answer stand where the page says, octet by octet: another language must find them there."""
    query = QueryItem(
        1, b"MSG", 2, 3, 4, 5, b"S" * 16, 6, b"D" * 16, 7, 8, 9, 10, 11, 12, 13, 14, b"T" * 16, b"P" * 8, 15, 16, 17,
        18, b"KEY", b"ID",
    )  # fmt: skip
    assert batch.encode_queries([query]) == (
        b"RB\x01\x01" + struct.pack("<H", 1)
        + struct.pack("<IHBB", 1, 3, 4, 5) + b"S" * 16 + struct.pack("<H", 6) + b"D" * 16
        + struct.pack("<HHHHQQQIQ", 7, 8, 9, 10, 11, 12, 13, 2, 14) + b"T" * 16 + b"P" * 8
        + struct.pack("<BHIBBBH", 15, 16, 17, 18, 3, 2, 3) + b"KEY" + b"ID" + b"MSG"
    )  # fmt: skip
    answer = AnswerItem(1, b"MSG", 2, 3, 4, 5, 6, 7, b"L" * 6, b"F", b"R" * 16, 8, "text")
    assert batch.encode_answers([answer]) == (
        b"RB\x01\x02" + struct.pack("<H", 1)
        + struct.pack("<IHBBhHIIQQHHHH", 1, 2, 3, 4, 8, 0, 4, 5, 6, 7, 6, 1, 16, 3)
        + b"text" + b"L" * 6 + b"F" + b"R" * 16 + b"MSG"
    )  # fmt: skip


@given(st.binary(max_size=300))
def test_any_octets_are_a_batch_error(data: bytes) -> None:
    """Garbage, alone or behind a good header, is a BatchError or a batch that encodes to itself."""
    for candidate in (data, b"RB\x01\x01" + data, b"RB\x01\x02" + data):
        for decode in (batch.decode_queries, batch.decode_answers, batch.kind_of):
            with contextlib.suppress(BatchError):
                decode(candidate)


@settings(max_examples=200)
@given(st.lists(QUERIES, min_size=1, max_size=3), st.lists(ANSWERS, min_size=1, max_size=3), st.data())
def test_any_cut_is_a_batch_error(queries: list[QueryItem], answers: list[AnswerItem], data: st.DataObject) -> None:
    """A batch without its last octets, or with octets behind them, is refused."""
    for encoded, decode in (
        (batch.encode_queries(queries), batch.decode_queries),
        (batch.encode_answers(answers), batch.decode_answers),
    ):
        cut = data.draw(st.integers(0, len(encoded) - 1))
        with pytest.raises(BatchError):
            decode(encoded[:cut])
        with pytest.raises(BatchError):
            decode(encoded + b"\x00")


def test_mutated_batches() -> None:
    """30,000 seeded mutations give items or BatchError, and no item larger than what came in."""
    rng = random.Random(20260725)
    queries = batch.encode_queries(
        [QueryItem(n, rng.randbytes(40), 1000, tsig_key=b"k", identity=b"i") for n in range(3)]
    )
    answers = batch.encode_answers(
        [AnswerItem(n, rng.randbytes(40), layout=b"123456", rooms=bytes(16), ede=3, ede_text="ü") for n in range(3)]
    )
    for number in range(30_000):
        original, decode = ((queries, batch.decode_queries), (answers, batch.decode_answers))[number % 2]
        data = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            choice = rng.randrange(3)
            if choice == 0:
                data[at] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
            elif choice == 1:
                data[at : at + rng.randint(1, 8)] = b""
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            if not data:
                break
        try:
            items = decode(bytes(data))
        except BatchError:
            continue
        assert sum(len(item.message) for item in items) <= len(data)


def test_limits() -> None:
    """Too many items, too many octets, fields out of range: refused with a sentence when encoding and decoding."""
    with pytest.raises(BatchError, match="1025 items"):
        batch.encode_queries([QueryItem(1, b"", 1)] * 1025)
    with pytest.raises(BatchError, match="1025 items"):
        batch.encode_answers([AnswerItem(1, b"")] * 1025)
    with pytest.raises(BatchError, match="octets"):
        batch.encode_queries([QueryItem(1, bytes(65_535), 1)] * 17)
    with pytest.raises(BatchError, match="octets"):
        batch.encode_answers([AnswerItem(1, bytes(65_535))] * 17)
    assert len(batch.decode_queries(batch.encode_queries([QueryItem(1, b"", 1)] * 1024))) == 1024
    for item in (
        QueryItem(1, bytes(65_536), 1),
        QueryItem(1 << 32, b"", 1),
        QueryItem(1, b"", -1),
        QueryItem(1, b"", 1, tsig_key=bytes(256)),
        QueryItem(1, b"", 1, identity=bytes(256)),
    ):
        with pytest.raises(BatchError, match="does not fit"):
            batch.encode_queries([item])
    for answer in (AnswerItem(1, bytes(65_536)), AnswerItem(1, b"", fresh_s=-1), AnswerItem(1, b"", ede=40_000)):
        with pytest.raises(BatchError, match="does not fit"):
            batch.encode_answers([answer])
    with pytest.raises(BatchError, match="version 2"):
        batch.kind_of(b"RB\x02\x01\x00\x00")
    with pytest.raises(BatchError, match="kind"):
        batch.kind_of(b"RB\x01\x03\x00\x00")
    with pytest.raises(BatchError, match="not a batch"):
        batch.kind_of(b"XX\x01\x01\x00\x00")
    with pytest.raises(BatchError, match="limits"):
        batch.decode_queries(b"RB\x01\x01" + struct.pack("<H", 1025))
    with pytest.raises(BatchError, match="expected"):
        batch.decode_queries(batch.encode_answers([]))
    with pytest.raises(BatchError, match="expected"):
        batch.decode_answers(batch.encode_queries([]))


@given(st.lists(st.tuples(st.sampled_from(Room), unsigned(8), unsigned(20), unsigned(50), st.integers(-5, 1 << 40))))
def test_rooms_round_trip(entries: list[tuple[Room, int, int, int, int]]) -> None:
    """Time stamps append to each other and come back in order; durations saturate instead of overflowing."""
    rooms = b"".join(batch.stamp(*entry) for entry in entries)
    assert batch.stamps(rooms) == [
        RoomStamp(room, outcome, instance & 0xFFFF, start, min(max(duration, 0), 0xFFFFFFFF))
        for room, outcome, instance, start, duration in entries
    ]
    with pytest.raises(BatchError):
        batch.stamps(rooms + b"\x00")


@given(
    st.lists(st.binary(max_size=50), max_size=5),
    st.lists(st.binary(min_size=4, max_size=16), max_size=5),
    st.lists(st.binary(max_size=50), max_size=5),
)
def test_facts_round_trip(chain: list[bytes], addresses: list[bytes], servers: list[bytes]) -> None:
    """Facts survive, and no octets are no facts."""
    made = facts.Facts(tuple(chain), tuple(addresses), tuple(servers))
    assert facts.decode(facts.encode(made)) == made
    assert facts.decode(b"") == facts.Facts()


def test_items_are_cheap() -> None:
    """Items stay out of the garbage collector: they hold bytes and numbers only."""
    for kind in (QueryItem, AnswerItem, RoomStamp):
        assert issubclass(kind, msgspec.Struct)
        assert kind.__struct_config__.gc is False
