"""A steady stream of questions over UDP that counts what was answered, and how: the judge of "no query lost".

Lost means: no answer to a question and to its one retry a second later, within another second after that.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from raydns.schemas import names

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; ``kind`` groups the counts."""

    name: str
    qtype: int = 1
    kind: str = "zone"


@dataclass(slots=True)
class Result:
    """What came of a load."""

    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    rcodes: Counter[tuple[str, int]] = field(default_factory=Counter)
    lost: list[tuple[float, Question]] = field(default_factory=list)
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def lost_of(self, kind: str) -> list[tuple[float, str]]:
        """When (seconds after the start) and what was lost."""
        return [(round(at, 2), q.name) for at, q in self.lost if q.kind == kind]


class _Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # asyncio's own is no subclass before 3.12

    def datagram_received(self, data: bytes, addr: object) -> None:
        future = self.waiting.get(int.from_bytes(data[:2], "big"))
        if future is not None and not future.done():
            future.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """A refused port (the ingress is away): the retry decides."""


class Load:
    """Asks ``questions`` at ``rate`` a second until told to stop.

    Args:
        address: of the server.
        questions: what to ask; chosen at random, unless ``pick`` chooses.
        rate: questions a second.
        check: looks at each answer; a text means that it was wrong.
    """

    def __init__(
        self,
        address: tuple[str, int],
        questions: Sequence[Question],
        rate: float,
        *,
        pick: Callable[[int], Question] | None = None,
        check: Callable[[Question, bytes], str] | None = None,
        seed: int = 1,
    ) -> None:
        self._address = address
        self._rng = random.Random(seed)
        self._pick = pick or (lambda _: self._rng.choice(questions))
        self._rate = rate
        self._check = check
        self._stop = asyncio.Event()
        self._clients: list[_Client] = []
        self.result = Result()
        self.started = 0.0

    def stop(self) -> None:
        """No further questions; those under way are still waited for."""
        self._stop.set()

    async def run(self, seconds: float = 3600.0) -> Result:
        """Runs until ``stop`` or for ``seconds``."""
        loop = asyncio.get_running_loop()
        for _ in range(8):
            _, protocol = await loop.create_datagram_endpoint(_Client, remote_addr=self._address)
            self._clients.append(protocol)
        self.started = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        number = 0
        while not self._stop.is_set() and time.monotonic() - self.started < seconds:
            due = int((time.monotonic() - self.started) * self._rate)
            while number < due:
                task = loop.create_task(self._ask(self._clients[number % 8], self._pick(number)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
            await asyncio.sleep(0.004)
        if tasks:
            await asyncio.wait(tasks, timeout=2 * RETRY_S + 10)
        for client in self._clients:
            if client.transport is not None:
                client.transport.close()
        return self.result

    async def _ask(self, client: _Client, question: Question) -> None:
        assert client.transport is not None
        began = time.monotonic()
        result = self.result
        result.sent[question.kind] += 1
        ident = self._rng.randrange(65536)
        while ident in client.waiting:
            ident = self._rng.randrange(65536)
        message = query(question.name, question.qtype, ident)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        client.waiting[ident] = future
        try:
            for attempt in range(2):
                client.transport.sendto(message)
                try:
                    answer = await asyncio.wait_for(asyncio.shield(future), RETRY_S)
                except TimeoutError:
                    if attempt == 0:
                        result.retried[question.kind] += 1
                    continue
                result.answered[question.kind] += 1
                result.rcodes[question.kind, answer[3] & 15] += 1
                result.slowest_s = max(result.slowest_s, time.monotonic() - began)
                if self._check is not None and (problem := self._check(question, answer)):
                    result.wrong.append(problem)
                return
            result.lost.append((began - self.started, question))
        finally:
            client.waiting.pop(ident, None)


def query(name: str, qtype: int, ident: int = 0, *, rd: bool = True) -> bytes:
    """A question in wire form."""
    return (
        struct.pack("!HHHHHH", ident, 0x0100 if rd else 0, 1, 0, 0, 0)
        + names.from_text(name)
        + struct.pack("!HH", qtype, 1)
    )


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits until a condition holds; fails after ``seconds``, naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)
