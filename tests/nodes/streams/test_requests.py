"""Questions over real streams: every question hears of its end exactly once, whatever happens to the stream."""

from __future__ import annotations

import asyncio

import pytest

from raydns.nodes.streams.server import Responder
from raydns.schemas.batch import ITEMS_MAX, AnswerFlag, AnswerItem, QueryItem
from tests.nodes.streams.conftest import MESSAGE, Bench, Collector, echo, until


async def test_ten_thousand_queries(bench: Bench) -> None:
    """10,000 questions sent at once are answered once each, with the right message, in full batches."""
    sizes: list[int] = []

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        sizes.append(len(queries))
        echo(queries, responder)

    await bench.serve(handler)
    client = await bench.client()
    heard = Collector()
    for number in range(10_000):
        client.send(QueryItem(0, MESSAGE + number.to_bytes(4, "big"), 5000), heard.done(number))
    assert client.in_flight == 10_000
    await until(lambda: client.in_flight == 0)
    for number, answers in heard.answers.items():
        assert [a and a.message for a in answers] == [MESSAGE + number.to_bytes(4, "big")]
    assert sum(sizes) == 10_000
    assert sizes[0] == ITEMS_MAX  # what was sent in one turn is one batch, up to the limit


async def test_questions_of_one_turn_are_one_batch(bench: Bench) -> None:
    """Questions that arrive in the same turn of the loop travel together, without a timer."""
    sizes: list[int] = []

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        sizes.append(len(queries))
        echo(queries, responder)

    await bench.serve(handler)
    client = await bench.client()
    heard = Collector()
    for number in range(7):
        client.send(QueryItem(0, MESSAGE, 5000), heard.done(number))
    await until(lambda: heard.count == 7)
    assert sizes == [7]


async def test_large_messages_are_split(bench: Bench) -> None:
    """Forty messages of 65,535 octets exceed a batch and arrive in several."""
    await bench.serve()
    client = await bench.client()
    heard = Collector()
    for number in range(40):
        client.send(QueryItem(0, bytes([number]) * 65_535, 5000), heard.done(number))
    await until(lambda: heard.count == 40)
    assert all(a is not None and a.message == bytes([n]) * 65_535 for n, (a,) in heard.answers.items())


async def test_what_fits_no_batch_harms_nobody_else(bench: Bench) -> None:
    """An item that cannot be encoded hears None; its neighbours are answered."""
    await bench.serve()
    client = await bench.client()
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(0))
    client.send(QueryItem(0, bytes(65_536), 5000), heard.done(1))
    client.send(QueryItem(0, MESSAGE, 5000, class_id=1 << 20), heard.done(2))
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(3))
    await until(lambda: heard.count == 4)
    assert heard.answers[1] == heard.answers[2] == [None]
    assert heard.answers[0] != [None]
    assert heard.answers[3] != [None]
    assert client.in_flight == 0


async def test_lost_connection_tells_none_exactly_once(bench: Bench) -> None:
    """A server that dies with questions in hand: each of them hears None once; later ones are answered."""
    held: list[QueryItem] = []
    server = await bench.serve(lambda queries, _: held.extend(queries))
    states: list[bool] = []
    client = await bench.client(on_state=states.append)
    heard = Collector()
    for number in range(100):
        client.send(QueryItem(0, MESSAGE, 5000), heard.done(number))
    await until(lambda: len(held) == 100)
    await server.close()
    await until(lambda: heard.count == 100)
    assert client.in_flight == 0
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(100))  # waits for the next server
    await bench.serve()
    await until(lambda: heard.count == 101)
    assert all(answers == [None] for number, answers in heard.answers.items() if number < 100)
    (last,) = heard.answers[100]
    assert last is not None
    assert last.message == MESSAGE
    assert states == [True, False, True]


async def test_restarts_on_the_same_path(bench: Bench) -> None:
    """Five restarts under questions: every question hears its answer or None, once, and the stream is back."""
    server = await bench.serve()
    client = await bench.client()
    heard = Collector()
    number = 0
    for _ in range(5):
        for _ in range(200):
            client.send(QueryItem(0, MESSAGE, 5000), heard.done(number))
            number += 1
            if number % 40 == 0:
                await asyncio.sleep(0)
        await server.close()
        server = await bench.serve()
        await until(lambda: client.connected)
    await until(lambda: heard.count == number)
    assert {len(answers) for answers in heard.answers.values()} == {1}
    assert client.in_flight == 0


async def test_drop_forgets(bench: Bench) -> None:
    """A dropped slot's callback is not called, neither by its answer nor by the end of the stream."""
    later: list[tuple[Responder, QueryItem]] = []
    server = await bench.serve(lambda queries, responder: later.extend((responder, q) for q in queries))
    client = await bench.client()
    heard = Collector()
    slots = [client.send(QueryItem(0, MESSAGE, 5000), heard.done(n)) for n in range(3)]
    await until(lambda: len(later) == 3)
    client.drop(slots[0])
    client.drop(slots[0])
    client.drop(123_456)
    for responder, item in later[:2]:
        responder.answer(AnswerItem(item.slot, MESSAGE))
    await until(lambda: heard.count == 1)
    client.drop(slots[2])
    await server.close()
    await until(lambda: not client.connected)
    assert heard.answers[0] == heard.answers[2] == []
    assert len(heard.answers[1]) == 1


async def test_dropped_before_it_was_sent_never_leaves(bench: Bench) -> None:
    """What is dropped in the turn in which it was sent costs the server nothing."""
    server = await bench.serve()
    client = await bench.client()
    heard = Collector()
    client.drop(client.send(QueryItem(0, MESSAGE, 5000), heard.done(0)))
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(1))
    await until(lambda: heard.count == 1)
    assert server.queries == 1


async def test_more_follows(bench: Bench) -> None:
    """Answers with the flag MORE are delivered in order, and the slot ends with the one that lacks it."""

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        for item in queries:
            for part in range(3):
                responder.answer(AnswerItem(item.slot, bytes([part]), AnswerFlag.MORE))
            responder.answer(AnswerItem(item.slot, b"end"))
            responder.answer(AnswerItem(item.slot, b"one too many"))

    await bench.serve(handler)
    client = await bench.client()
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(0))
    await until(lambda: client.in_flight == 0)
    assert [a and a.message for a in heard.answers[0]] == [b"\0", b"\1", b"\2", b"end"]


async def test_deadline_passes_while_nobody_listens(bench: Bench) -> None:
    """A question to an absent actor hears None at its deadline; one with more time left waits and is answered."""
    client = await bench.client(wait=False)
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 150), heard.done(0))
    client.send(QueryItem(0, MESSAGE, 8000), heard.done(1))
    await until(lambda: heard.count == 1)
    assert heard.answers[0] == [None]
    assert client.last_problem
    seen: list[int] = []

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        seen.extend(item.deadline_ms for item in queries)
        echo(queries, responder)

    await bench.serve(handler)
    await until(lambda: heard.count == 2)
    assert heard.answers[1] != [None]
    assert seen[0] < 8000 - 100  # what it waited here is gone from its deadline


async def test_too_many_in_flight(bench: Bench) -> None:
    """Beyond the bound a question hears None, not from within send."""
    await bench.serve(lambda queries, responder: None)
    client = await bench.client(in_flight_max=10)
    heard = Collector()
    for number in range(15):
        client.send(QueryItem(0, MESSAGE, 5000), heard.done(number))
    assert heard.count == 0
    await until(lambda: heard.count == 5)
    assert [n for n, answers in heard.answers.items() if answers == [None]] == [10, 11, 12, 13, 14]
    assert client.in_flight == 10


async def test_close_tells_everybody_and_refuses_more(bench: Bench) -> None:
    """Closing tells None to all who wait, and to all who ask later."""
    await bench.serve(lambda queries, responder: None)
    client = await bench.client()
    heard = Collector()
    for number in range(5):
        client.send(QueryItem(0, MESSAGE, 5000), heard.done(number))
    await client.close()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(5))
    await until(lambda: heard.count == 6)
    assert all(answers == [None] for answers in heard.answers.values())
    assert client.in_flight == 0


async def test_a_callback_that_raises_harms_only_itself(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in one callback is logged; the other answers of the batch arrive and the stream stays up."""
    await bench.serve()
    client = await bench.client()
    heard = Collector()

    def broken(_: AnswerItem | None) -> None:
        raise ValueError("a bug above")

    client.send(QueryItem(0, MESSAGE, 5000), broken)
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(1))
    await until(lambda: heard.count == 1)
    assert client.connected
    assert "answer_callback_failed" in caplog.text


async def test_callback_that_asks_again(bench: Bench) -> None:
    """A callback may send the next question itself: a chain of 500 is answered."""
    await bench.serve()
    client = await bench.client()
    count = 0
    end = asyncio.get_running_loop().create_future()

    def again(answer: AnswerItem | None) -> None:
        nonlocal count
        assert answer is not None
        count += 1
        if count == 500:
            end.set_result(None)
        else:
            client.send(QueryItem(0, MESSAGE, 5000), again)

    client.send(QueryItem(0, MESSAGE, 5000), again)
    await asyncio.wait_for(end, 10)
