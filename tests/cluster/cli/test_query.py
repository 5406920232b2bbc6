"""``raydns query``: a real DNS exchange over UDP and TCP, and the rooms of its trace."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.cluster.cli import message
from raydns.cluster.cli.place import addresses
from raydns.cluster.cli.query import rooms_of
from raydns.cluster.cli.shared import Settings
from raydns.schemas import dns, names, wire
from raydns.schemas.batch import Outcome, Room, stamp
from raydns.schemas.errors import CommandError, MessageError
from tests.cluster.cli.fake import FakeNode, say

Respond = Callable[[bytes, bool], bytes | None]


class FakeServer:
    """A DNS server of one thread for UDP and one for TCP, that answers what a test wants."""

    def __init__(self) -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.port: int = self.udp.getsockname()[1]
        self.tcp = socket.create_server(("127.0.0.1", self.port))
        self.questions: list[bytes] = []
        self.respond: Respond = lambda question, _: answer(question)
        for work in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=work, daemon=True).start()

    def _serve_udp(self) -> None:
        while True:
            try:
                question, client = self.udp.recvfrom(4096)
            except OSError:
                return
            self.questions.append(question)
            if (reply := self.respond(question, False)) is not None:
                with contextlib.suppress(OSError):  # closed meanwhile, since the test has what it wanted
                    self.udp.sendto(reply, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            with connection:
                question = connection.recv(4096)[2:]
                reply = self.respond(question, True) or b""
                connection.sendall(struct.pack("!H", len(reply)) + reply if reply else b"")

    def close(self) -> None:
        """Ends both threads."""
        self.udp.close()
        self.tcp.shutdown(socket.SHUT_RDWR)
        self.tcp.close()


def answer(question: bytes, *, flags: int = 0x8180) -> bytes:
    """A response with one A record."""
    end = question.index(b"\x00", 12) + 5
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + bytes((192, 0, 2, 1))
    return question[:2] + struct.pack("!HHHHH", flags, 1, 1, 0, 0) + question[12:end] + record


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A DNS server on loopback."""
    fake = FakeServer()
    yield fake
    fake.close()


def test_query(server: FakeServer) -> None:
    """The answer is told with its code, flags, size, transport and time."""
    said = say("query", "www.example", "--server", f"127.0.0.1:{server.port}")
    assert said.code == 0
    assert said.out.startswith("; NOERROR [qr rd ra] 45 octets, udp, ")
    assert "www.example. 60 IN A 192.0.2.1" in said.out


def test_query_json(server: FakeServer) -> None:
    """JSON holds the same."""
    data = say("query", "www.example", "A", "--json", "--server", f"127.0.0.1:{server.port}").json
    assert (data["rcode"], data["flags"], data["transport"]) == ("NOERROR", ["qr", "rd", "ra"], "udp")
    assert data["answer"] == ["www.example. 60 IN A 192.0.2.1"]


def test_truncation_is_followed(server: FakeServer) -> None:
    """TC over UDP means TCP (RFC 7766 section 5)."""
    server.respond = lambda question, tcp: answer(question, flags=0x8180 if tcp else 0x8380)
    data = say("query", "www.example", "--json", "--server", f"127.0.0.1:{server.port}").json
    assert data["transport"] == "tcp"
    assert (
        say("query", "www.example", "--tcp", "--json", "--server", f"127.0.0.1:{server.port}").json["transport"]
        == "tcp"
    )


def test_foreign_answers_are_passed_over(server: FakeServer) -> None:
    """A wrong ID, an echo and a fragment are not taken for the answer."""

    def confuse(question: bytes, _: bool) -> bytes | None:
        return bytes((question[0] ^ 1,)) + answer(question)[1:]

    server.respond = confuse
    said = say("query", "www.example", "--timeout", "0.4", "--server", f"127.0.0.1:{server.port}")
    assert said.code == 6
    assert f"127.0.0.1:{server.port}: no answer within 0.4 s" in said.err
    assert len(server.questions) == 2


def test_nobody_listens(directory: Path) -> None:
    """A refused port is exit code 4 at once."""
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    said = say("query", "www.example", "--server", f"127.0.0.1:{port}", "--state-dir", directory)
    assert said.code == 4
    assert "cannot be asked: Connection refused" in said.err


def test_tcp_that_is_closed(server: FakeServer) -> None:
    """A connection that is closed without an answer is told as such."""
    server.respond = lambda *_: None
    said = say("query", "www.example", "--tcp", "--server", f"127.0.0.1:{server.port}")
    assert (said.code, "the connection was closed" in said.err) == (4, True)


def test_answer_that_cannot_be_read(server: FakeServer) -> None:
    """Octets that are no message are an error of ours, not an exception."""
    server.respond = lambda question, _: answer(question)[:-3]
    said = say("query", "www.example", "--server", f"127.0.0.1:{server.port}")
    assert said.code == 1
    assert said.err.startswith("raydns: the answer cannot be read: ")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a..b"], 3, "empty label in 'a..b'"),
        (["a", "NOPE"], 2, "query: 'NOPE' is not a record type"),
        (["a", "TYPE65536"], 2, "is not a record type"),
        (["a", "A", "extra"], 2, "unexpected extra argument (extra)"),
        (["a", "--server", "nowhere"], 2, "query --server: 'nowhere' is not an IP address"),
        (["a", "--server", "127.0.0.1:70000"], 2, "'70000' is not a port"),
        (["a", "--trace", "--server", "127.0.0.1"], 2, "--trace asks this node's ingress"),
        (["a", "--timeout", "0"], 2, "Invalid value for '--timeout'"),
        ([], 2, "Missing argument 'NAME'"),
    ],
)
def test_refusals(directory: Path, words: list[str], code: int, message: str) -> None:
    """Arguments that make no sense are told before anything is sent."""
    said = say("query", *words, "--state-dir", directory)
    assert said.code == code
    assert message in said.err


def test_trace(node: FakeNode, directory: Path, server: FakeServer) -> None:
    """The question carries a sampled trace context; the rooms of that trace are shown with their times."""
    node.methods["node"]["status"] = lambda _: {"addresses": [f"0.0.0.0:{server.port}"]}
    rooms = stamp(Room.INGRESS, Outcome.MISS, 0, 1000, 900) + stamp(Room.CACHE, Outcome.MISS, 2, 1100, 700)
    asked: list[str] = []

    def recent(params: dict[str, object]) -> dict[str, object]:
        asked.append(str(params["trace_id"]))
        first = len(asked) == 1  # the ingress notes a query after its answer has gone
        return {"queries": [] if first else [{"time_us": 1000, "duration_us": 900, "rooms": rooms}]}

    node.methods["ingress"]["recent"] = recent
    said = say("query", "www.example", "--trace", "--state-dir", directory)
    assert said.code == 0
    edns = wire.parse_query(server.questions[0]).edns
    assert edns is not None
    context = edns.options[dns.EdnsOption.TRACE_CONTEXT]
    assert (len(context), context[0], context[25]) == (26, 0, 1)
    assert context[1:17].hex() in asked
    lines = [line.split() for line in said.out.splitlines()]
    assert ["ingress", "miss", "0", "900"] in lines
    assert ["cache:2", "miss", "100", "700"] in lines
    data = say("query", "www.example", "--trace", "--json", "--state-dir", directory).json
    assert [room["room"] for room in data["trace"]["rooms"]] == ["ingress", "cache"]


def test_trace_that_was_not_noted(
    node: FakeNode, directory: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rooms the answer is shown all the same, and why there are none."""
    monkeypatch.setattr("raydns.cluster.cli.query.TRACE_WAIT_S", 0.1)
    node.methods["node"]["status"] = lambda _: {"addresses": [f"127.0.0.1:{server.port}"]}
    said = say("query", "www.example", "--trace", "--state-dir", directory)
    assert said.code == 0
    assert "192.0.2.1" in said.out
    assert "no rooms: the ingress did not note it" in said.err


def test_rooms_that_cannot_be_read() -> None:
    """Damaged stamps are no rooms, unknown numbers are shown as numbers."""
    assert rooms_of({"rooms": b"123"}) == []
    assert rooms_of({"rooms": "zz"}) == []
    assert rooms_of({"rooms": None}) == []
    assert rooms_of({"rooms": stamp(99, 98, 1, 5, 6)}) == [
        {"room": "99", "instance": 1, "outcome": "98", "at_us": 0, "duration_us": 6}
    ]


def test_question_is_what_our_own_parser_reads() -> None:
    """Name, type, DO and RD arrive as they were asked."""
    question = message.build(7, names.from_text("a.b"), 65280, do=True, rd=False)
    parsed = wire.parse_query(question)
    assert (parsed.qname, parsed.qtype, parsed.rd) == (names.from_text("a.b."), 65280, False)
    assert parsed.edns is not None
    assert parsed.edns.do


def test_types() -> None:
    """Types by name and by number (RFC 3597)."""
    assert [message.type_number(text) for text in ("A", "https", "TYPE65280", "ANY")] == [1, 65, 65280, 255]
    with pytest.raises(CommandError, match="is not a record type"):
        message.type_number("")


@given(st.binary(max_size=200))
def test_no_answer_raises_another_error(data: bytes) -> None:
    """Property: whatever a server sends is read, or refused as a MessageError."""
    with suppress(MessageError):
        assert "rcode" in message.read(data)


def test_place_of_this_node(node: FakeNode, directory: Path, server: FakeServer) -> None:
    """The supervisor tells the address; without it the ingress; without either, nobody is there."""
    node.methods["node"]["status"] = lambda _: {"addresses": [f"[::]:{server.port}", f"0.0.0.0:{server.port}"]}
    node.methods["ingress"]["status"] = lambda _: {"sockets": ["tcp closed", f"udp 127.0.0.1:{server.port}"]}
    settings = Settings(state_dir_option=str(directory), environ={})
    assert addresses(settings) == [("::1", server.port), ("127.0.0.1", server.port)]
    node.state_dir.node_socket.unlink()
    assert addresses(settings) == [("127.0.0.1", server.port)]
    assert say("query", "www.example", "--state-dir", directory).code == 0
    node.state_dir.ingress_socket.unlink()
    assert say("query", "www.example", "--state-dir", directory).code == 4
