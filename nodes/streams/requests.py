"""Questions one by one over a stream: slots are assigned here, and each question's callback hears of its end.

Everything that is sent in one turn of the loop leaves as one batch. Must be used in the loop's thread only.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from raydns.schemas import batch
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryItem
from raydns.schemas.cluster import Endpoint
from raydns.schemas.errors import BatchError

from .client import StreamClient
from .frames import Role
from .packing import BATCH_ROOM, query_size
from .secret import ClusterContext

log = logging.getLogger(__name__)

Done = Callable[[AnswerItem | None], None]

IN_FLIGHT_MAX: Final = 65_536
SWEEP_S: Final = 0.1


class _Waiting:
    __slots__ = ("done", "item", "queued_at")

    def __init__(self, done: Done, item: QueryItem | None, queued_at: float) -> None:
        self.done = done
        self.item = item  # None once it has been sent
        self.queued_at = queued_at


class Requests:
    """A push adapter on a ``StreamClient``.

    While the stream is down, questions wait for it until their own deadline; those that were sent are told
    ``None`` at once when it breaks, so that their owner asks somebody else.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        machine: str,
        *,
        ssl_context: ClusterContext | None = None,
        role: int = Role.OTHER,
        on_state: Callable[[bool], None] | None = None,
        in_flight_max: int = IN_FLIGHT_MAX,
        rng: random.Random | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._client = StreamClient(
            endpoint,
            machine,
            pull=self._pull,
            on_batch=self._on_answers,
            on_state=self._state,
            ssl_context=ssl_context,
            role=role,
            rng=rng,
        )
        self._on_state = on_state
        self._in_flight_max = in_flight_max
        self._waiting: dict[int, _Waiting] = {}
        self._queue: deque[int] = deque()  # slots not yet sent; dropped ones are skipped
        self._slot = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def in_flight(self) -> int:
        """Questions without a last answer, sent or not."""
        return len(self._waiting)

    @property
    def connected(self) -> bool:
        """Whether the stream is up and its peer takes questions."""
        return self._client.connected and not self._client.leaving

    @property
    def last_problem(self) -> str:
        """Why the stream is or was down."""
        return self._client.last_problem

    def start(self) -> None:
        """Starts to connect; call once, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._client.start()

    async def close(self) -> None:
        """Stops for good; everybody who still waits is told ``None``."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._client.close()
        self._fail(list(self._waiting))

    def send(self, item: QueryItem, done: Done) -> int:
        """Sends a question and returns its slot, for ``drop``.

        Args:
            item: its ``slot`` is set here; ``deadline_ms`` is lowered by what it waits here.
            done: called with each answer (more than one only where its flag MORE says so), or once with ``None``
                if the stream broke, the deadline passed before it could be sent, or too much is in flight. Never
                called from within ``send``.
        """
        loop = self._loop or asyncio.get_running_loop()
        slot = self._next_slot()
        item.slot = slot
        if self._closed or len(self._waiting) >= self._in_flight_max:
            loop.call_soon(self._call, done, None)
            return slot
        if len(self._queue) >= 2 * self._in_flight_max:  # dropped ones, while the window was closed
            self._queue = deque(s for s in self._queue if s in self._waiting)
        self._waiting[slot] = _Waiting(done, item, loop.time())
        self._queue.append(slot)
        if self._client.connected:
            self._client.wake()
        elif self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep)
        return slot

    def drop(self, slot: int) -> None:
        """Nobody waits for this slot any more: its callback is not called again."""
        self._waiting.pop(slot, None)

    def _next_slot(self) -> int:
        slot = self._slot
        while slot in self._waiting:
            slot = (slot + 1) & 0xFFFFFFFF
        self._slot = (slot + 1) & 0xFFFFFFFF
        return slot

    def _pull(self) -> bytes | None:
        while items := self._take():
            try:
                return batch.encode_queries(items)
            except BatchError:
                # One of them fits no batch: the others must not suffer for it.
                good = [item for item in items if _encodes(item)]
                bad = {item.slot for item in items} - {item.slot for item in good}
                log.error("query_does_not_fit", extra={"count": len(bad), "endpoint": self.endpoint.actor})
                self._fail(list(bad))
                if good:
                    return batch.encode_queries(good)
        return None

    def _take(self) -> list[QueryItem]:
        """What the next batch holds; from now on it counts as sent."""
        queue, waiting = self._queue, self._waiting
        if not queue:
            return []
        items: list[QueryItem] = []
        late: list[int] = []
        now = self._now()
        room = BATCH_ROOM
        while queue and len(items) < batch.ITEMS_MAX:
            entry = waiting.get(queue[0])
            if entry is None or entry.item is None:  # dropped meanwhile
                queue.popleft()
                continue
            item = entry.item
            size = query_size(item)
            if size > room and items:
                break
            slot = queue.popleft()
            waited_ms = int((now - entry.queued_at) * 1000)
            if waited_ms and waited_ms >= item.deadline_ms:
                late.append(slot)
                continue
            item.deadline_ms -= waited_ms
            entry.item = None
            room -= size
            items.append(item)
        if late:
            self._fail(late)
        return items

    def _on_answers(self, data: bytes) -> None:
        waiting = self._waiting
        for answer in batch.decode_answers(data):
            entry = waiting.get(answer.slot)
            if entry is None:  # dropped, or a peer's mistake
                continue
            if not answer.flags & AnswerFlag.MORE:
                del waiting[answer.slot]
            self._call(entry.done, answer)

    def _state(self, up: bool) -> None:
        if up:
            self._client.wake()
        else:
            self._fail([slot for slot, entry in self._waiting.items() if entry.item is None])
        if self._on_state is not None:
            self._on_state(up)

    def _fail(self, slots: list[int]) -> None:
        for slot in slots:
            entry = self._waiting.pop(slot, None)
            if entry is not None:
                self._call(entry.done, None)

    def _sweep(self) -> None:
        """While the stream is down, questions whose deadline has passed must not wait for it to come up."""
        self._sweeper = None
        if self._closed:
            return
        now = self._now()
        late: list[int] = []
        kept: deque[int] = deque()
        for slot in self._queue:
            entry = self._waiting.get(slot)
            if entry is None or entry.item is None:
                continue
            if (now - entry.queued_at) * 1000 >= entry.item.deadline_ms:
                late.append(slot)
            else:
                kept.append(slot)
        self._queue = kept
        self._fail(late)
        if self._queue and not self._client.connected and self._loop is not None and self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _call(self, done: Done, answer: AnswerItem | None) -> None:
        try:
            done(answer)
        except Exception:
            # The other answers of the batch must still reach their owners.
            log.exception("answer_callback_failed", extra={"endpoint": self.endpoint.actor})


def _encodes(item: QueryItem) -> bool:
    try:
        batch.encode_queries([item])
    except BatchError:
        return False
    return True
