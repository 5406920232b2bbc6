"""The stream's state machine: fragmentation, windows, liveness, versions, and whatever strangers may send."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raydns.nodes.streams import frames
from raydns.nodes.streams.frames import (
    WINDOW,
    Acknowledged,
    BatchReceived,
    Connection,
    FrameType,
    Leaving,
    Opened,
    State,
)
from raydns.schemas.batch import BATCH_SIZE_MAX
from raydns.schemas.errors import FrameError

BYE = struct.pack("<IB", 1, FrameType.BYE)
PING = struct.pack("<IB", 1, FrameType.PING)
PONG = struct.pack("<IB", 1, FrameType.PONG)


def pair() -> tuple[Connection, Connection]:
    """Two connections that have said HELLO to each other."""
    one = Connection(frames.Role.INGRESS, "one", 0.0)
    two = Connection(frames.Role.CACHE, "two", 0.0)
    one.receive(two.data_to_send(), 0.0)
    two.receive(one.data_to_send(), 0.0)
    return one, two


class StreamMachine(RuleBasedStateMachine):
    """Two ends and two pipes; a model of what was sent, delivered and acknowledged each way."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = [Connection(1, "a", 0.0), Connection(2, "b", 0.0)]
        self.pipes = [b"", b""]  # pipes[i] holds octets from end i
        self.sent: list[list[bytes]] = [[], []]
        self.delivered: list[list[bytes]] = [[], []]  # what end i received
        self.unacknowledged: list[list[int]] = [[], []]  # sequence numbers that end i has not handed over
        self.opened = [0, 0]
        self.now = 0.0

    @rule(end=st.integers(0, 1), body=st.binary(max_size=40))
    def send(self, end: int, body: bytes) -> None:
        """Sends while the window has room, and is refused where it has none."""
        connection = self.ends[end]
        if connection.window > 0:
            connection.send_batch(body)
            self.sent[end].append(body)
        else:
            with pytest.raises(FrameError):
                connection.send_batch(body)

    @rule(end=st.integers(0, 1))
    def write(self, end: int) -> None:
        """Moves what an end has to say into its pipe."""
        self.pipes[end] += self.ends[end].data_to_send()

    @rule(end=st.integers(0, 1), size=st.integers(1, 60))
    def read(self, end: int, size: int) -> None:
        """Delivers a fragment of any size."""
        data, self.pipes[1 - end] = self.pipes[1 - end][:size], self.pipes[1 - end][size:]
        for event in self.ends[end].receive(data, self.now):
            if isinstance(event, BatchReceived):
                self.delivered[end].append(event.data)
                self.unacknowledged[end].append(event.seq)
            elif isinstance(event, Opened):
                self.opened[end] += 1

    @precondition(lambda self: any(self.unacknowledged))
    @rule(end=st.integers(0, 1), count=st.integers(1, 4))
    def hand_over(self, end: int, count: int) -> None:
        """Acknowledges some of what was received, in order."""
        for seq in self.unacknowledged[end][:count]:
            self.ends[end].acknowledge(seq)
        del self.unacknowledged[end][:count]

    @rule(seconds=st.floats(0.0, 0.9))
    def tick(self, seconds: float) -> None:
        """Time passes, but never a whole silence since both are kept alive here."""
        self.now += seconds
        for connection in self.ends:
            connection.heard(self.now)
            connection.tick(self.now)

    @invariant()
    def windows_hold(self) -> None:
        """Never more than four in flight, nothing lost, nothing reordered, one HELLO each."""
        for end in (0, 1):
            assert 0 <= self.ends[end].in_flight <= WINDOW
            assert len(self.unacknowledged[end]) <= WINDOW
            got = self.delivered[1 - end]
            assert got == self.sent[end][: len(got)]
            assert self.opened[end] <= 1
            assert self.ends[end].state is not State.CLOSED


StreamMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestStreamMachine = StreamMachine.TestCase


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), max_size=20))
def test_garbage_is_a_frame_error_or_kept(data: bytes, cuts: list[int]) -> None:
    """Any octets in any fragmentation give events or FrameError, and never more is kept than one frame."""
    connection = Connection(0, "x", 0.0)
    position = 0
    try:
        for size in [*cuts, len(data)]:
            connection.receive(data[position : position + size], 0.0)
            position += size
    except FrameError:
        assert connection.state is State.CLOSED
        assert connection.data_to_send() == b""
        with pytest.raises(FrameError):
            connection.receive(b"", 0.0)
    assert len(connection._in) <= len(data)


@given(st.binary(min_size=1, max_size=300))
def test_garbage_after_hello(data: bytes) -> None:
    """An opened connection meets garbage with FrameError, or an event for what happened to be a frame."""
    one, _ = pair()
    try:
        one.receive(data, 0.0)
    except FrameError:
        assert one.state is State.CLOSED


def test_window_is_enforced_on_the_receiver() -> None:
    """A peer that sends a fifth batch without an acknowledgement is cut off."""
    one, _ = pair()
    for seq in range(1, WINDOW + 1):
        assert one.receive(struct.pack("<IBI", 6, FrameType.BATCH, seq) + b"x", 0.0) == [BatchReceived(seq, b"x")]
    with pytest.raises(FrameError, match="in flight"):
        one.receive(struct.pack("<IBI", 6, FrameType.BATCH, WINDOW + 1) + b"x", 0.0)


def test_handed_over_but_unsent_acknowledgement_does_not_widen_the_window() -> None:
    """The window opens with the ACK that leaves, not with the hand-over, so that both ends count alike."""
    one, _ = pair()
    for seq in range(1, WINDOW + 1):
        one.receive(struct.pack("<IBI", 6, FrameType.BATCH, seq) + b"x", 0.0)
        one.acknowledge(seq)
    assert one.data_to_send() == struct.pack("<IBI", 5, FrameType.ACK, WINDOW)  # cumulative: one for four
    assert one.receive(struct.pack("<IBI", 6, FrameType.BATCH, 5) + b"x", 0.0) == [BatchReceived(5, b"x")]


def test_sequence_numbers_must_follow() -> None:
    """A repeated, skipped or never sent sequence number breaks the connection."""
    for frame in (
        struct.pack("<IBI", 6, FrameType.BATCH, 2) + b"x",
        struct.pack("<IBI", 6, FrameType.BATCH, 0) + b"x",
        struct.pack("<IBI", 5, FrameType.ACK, 1),
        struct.pack("<IBI", 5, FrameType.ACK, 0xFFFFFFFF),
    ):
        one, _ = pair()
        with pytest.raises(FrameError):
            one.receive(frame, 0.0)


def test_sequence_numbers_wrap() -> None:
    """After 2^32 batches both ends go on with zero."""
    one, two = pair()
    one._sent = one._sent_acked = 0xFFFFFFFE
    two._received = two._received_acked = two._handed_over = 0xFFFFFFFE
    for number in range(6):
        one.send_batch(bytes([number]))
        (event,) = two.receive(one.data_to_send(), 0.0)
        assert isinstance(event, BatchReceived)
        assert event.data == bytes([number])
        two.acknowledge(event.seq)
        assert one.receive(two.data_to_send(), 0.0) == [Acknowledged(1)]
    assert one.in_flight == 0


def test_frame_sizes_are_checked_before_anything_is_buffered() -> None:
    """Five octets that announce a frame too large or too small for its type are refused at once."""
    for kind, length in (
        (FrameType.BATCH, BATCH_SIZE_MAX + 6),
        (FrameType.BATCH, 4),
        (FrameType.PING, 2),
        (FrameType.BYE, 0),
        (FrameType.ACK, 6),
        (FrameType.HELLO, 2000),
        (7, 1),
        (0, 1),
        (255, 0xFFFFFFFF),
    ):
        one, _ = pair()
        with pytest.raises(FrameError):
            one.receive(struct.pack("<IB", length, kind), 0.0)


def test_largest_batch_passes_and_a_larger_one_is_refused() -> None:
    """A batch of the largest size goes through in small pieces; one octet more is not sent."""
    one, two = pair()
    with pytest.raises(FrameError):
        one.send_batch(bytes(BATCH_SIZE_MAX + 1))
    body = random.Random(4).randbytes(BATCH_SIZE_MAX)
    one.send_batch(body)
    data = one.data_to_send()
    events = [event for at in range(0, len(data), 65536) for event in two.receive(data[at : at + 65536], 0.0)]
    assert events == [BatchReceived(1, body)]


def test_first_frame_must_be_hello_and_only_the_first() -> None:
    """A batch before HELLO, and a second HELLO, break the connection."""
    connection = Connection(0, "x", 0.0)
    with pytest.raises(FrameError, match="HELLO"):
        connection.receive(PING, 0.0)
    hello = Connection(0, "y", 0.0).data_to_send()
    connection = Connection(0, "x", 0.0)
    connection.receive(hello, 0.0)
    with pytest.raises(FrameError, match="second"):
        connection.receive(hello, 0.0)


@pytest.mark.parametrize(
    ("mine", "theirs", "agreed"),
    [((2, 1), (1, 1), 1), ((1, 1), (2, 1), 1), ((2, 1), (3, 2), 2), ((3, 2), (1, 1), None), ((1, 1), (3, 2), None)],
)
def test_one_version_back_is_understood(mine: tuple[int, int], theirs: tuple[int, int], agreed: int | None) -> None:
    """Neighbouring versions agree on the lower one; versions that lie further apart say so and part."""
    one = Connection(1, "one", 0.0, version=mine[0], version_oldest=mine[1])
    two = Connection(2, "zwei", 0.0, version=theirs[0], version_oldest=theirs[1])
    if agreed is None:
        with pytest.raises(FrameError, match="versions"):
            one.receive(two.data_to_send(), 0.0)
        assert one.state is State.CLOSED
    else:
        assert one.receive(two.data_to_send(), 0.0) == [Opened(agreed, 2, "zwei")]


def test_hello_of_a_later_version_may_be_longer() -> None:
    """Octets that a later version adds to HELLO are ignored."""
    body = struct.pack("<4sBBBB", b"RDNS", 2, 1, 9, 2) + b"hi" + b"something new"
    connection = Connection(0, "x", 0.0)
    events = connection.receive(struct.pack("<IB", len(body) + 1, FrameType.HELLO) + body, 0.0)
    assert events == [Opened(1, 9, "hi")]


def test_overlong_and_strange_names_are_cut() -> None:
    """A name of any length and content makes a valid HELLO."""
    for name in ("", "x" * 1000, "ü" * 200, "\ud800"):
        connection = Connection(0, "x", 0.0)
        (event,) = connection.receive(Connection(0, name, 0.0).data_to_send(), 0.0)
        assert isinstance(event, Opened)
        assert len(event.name.encode("utf-8", "replace")) <= 257


def test_quiet_peer_is_asked_and_a_silent_one_is_dead() -> None:
    """PING after a second of quiet, once a second; any octet restarts it; five seconds of silence are the end."""
    one, two = pair()
    one.tick(0.9)
    assert one.data_to_send() == b""
    one.tick(1.0)
    assert one.data_to_send() == PING
    one.tick(1.5)
    assert one.data_to_send() == b""
    two.receive(PING + PING + PING, 1.5)
    assert two.data_to_send() == PONG
    assert one.receive(PONG, 4.9) == []
    one.tick(9.8)
    with pytest.raises(FrameError, match="anything for 5"):
        one.tick(9.95)
    assert one.state is State.CLOSED
    one.tick(20.0)  # closed: silence


def test_missing_hello_is_noticed() -> None:
    """A peer that connects and says nothing is cut off in the same time."""
    connection = Connection(0, "x", 10.0)
    with pytest.raises(FrameError, match="HELLO"):
        connection.tick(15.0)


def test_bye_closes_the_window_but_debts_are_paid() -> None:
    """After BYE the peer sends nothing new, while the one who said it still sends what it owes."""
    one, two = pair()
    two.say_bye()
    two.say_bye()
    data = two.data_to_send()
    assert data == BYE
    assert one.receive(data + data, 0.0) == [Leaving()]
    assert one.window == 0
    two.send_batch(b"debt")
    assert one.receive(two.data_to_send(), 0.0) == [BatchReceived(1, b"debt")]


def test_mutated_frames() -> None:
    """50,000 seeded mutations of a valid conversation end in events or FrameError, without growth."""
    seed = 20260725
    rng = random.Random(seed)
    speaker = Connection(1, "speaker", 0.0)
    listener = Connection(2, "listener", 0.0)
    speaker.receive(listener.data_to_send(), 0.0)
    for size in (0, 6, 80, 300):
        speaker.send_batch(rng.randbytes(size))
    speaker.say_bye()
    valid = speaker.data_to_send() + PING + PONG
    for number in range(50_000):
        data = bytearray(valid)
        for _ in range(rng.randint(1, 4)):
            choice = rng.randrange(4)
            at = rng.randrange(len(data))
            if choice == 0:
                data[at] = rng.randrange(256)
            elif choice == 1:
                del data[at : at + rng.randint(1, 9)]
            elif choice == 2:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
            else:
                data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\0", b"\0\0\x10\0"))
            if not data:
                break
        connection = Connection(0, "x", 0.0)
        cut = rng.randint(0, len(data))
        try:
            events = connection.receive(bytes(data[:cut]), 0.0) + connection.receive(bytes(data[cut:]), 0.0)
        except FrameError:
            assert connection.state is State.CLOSED
        else:
            assert sum(isinstance(event, BatchReceived) for event in events) <= WINDOW, (seed, number)
        assert len(connection._in) <= len(data)
        assert len(connection.data_to_send()) < 400
