"""Upstreams by host name: bootstrap, renewal, what is kept, and what is said when it does not work."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from raydns.actors.query.budget import Budget
from raydns.actors.query.forward.faults import UpstreamUnresolved
from raydns.actors.query.forward.message import Question
from raydns.actors.query.forward.names import HostNames, system_resolvers
from raydns.actors.query.forward.own import OwnAddresses
from raydns.actors.query.forward.reply import Reply
from raydns.schemas import facts
from tests.actors.query.kit import (
    HERE,
    A,
    ScriptedUpstream,
    config,
    forwarding,
    good,
    name,
    question_of,
    record,
    response,
    until,
)


class Bootstrap:
    """A resolver with one record, in virtual time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.address: bytes | None = b"\xc0\x00\x02\x07"
        self.asked = 0

    async def resolve(self, question: Question, budget: Budget) -> Reply:
        """A has the address, AAAA has none."""
        self.asked += question.qtype == A
        if self.address is None:
            raise UpstreamUnresolved("nobody there")
        addresses = (self.address,) if question.qtype == A else ()
        return Reply(b"", b"", 0, 60, facts.encode(facts.Facts((), addresses)))

    def names(self) -> HostNames:
        """Host names on this resolver."""
        return HostNames(self.resolve, lambda: self.now, lambda: 0.5)


async def test_addresses_are_renewed_by_ttl_and_kept_when_that_fails() -> None:
    """Asked again after its TTL; a failure keeps the last known, and is tried again with growing pauses."""
    bootstrap = Bootstrap()
    host = bootstrap.names()
    assert await host.wait("up.example", 1.0) == ("192.0.2.7",)
    assert host.known("up.example") == ("192.0.2.7",)
    assert bootstrap.asked == 1
    bootstrap.address = None
    pauses = []
    for _ in range(9):
        before = bootstrap.now = host._hosts["up.example"].refresh_at
        assert host.known("up.example") == ("192.0.2.7",)
        await until(lambda: host._hosts["up.example"].task is None)
        pauses.append(host._hosts["up.example"].refresh_at - before)
    assert pauses[0] == 1.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0
    assert "nobody there" in host.problems()["up.example"]
    bootstrap.address = b"\xc0\x00\x02\x08"
    bootstrap.now += 61
    host.known("up.example")
    await until(lambda: host.known("up.example") == ("192.0.2.8",))
    assert not host.problems()


async def test_an_unresolvable_upstream_says_which_and_what_to_do() -> None:
    """The error names the host, the reason and the option."""
    bootstrap = Bootstrap()
    bootstrap.address = None
    with pytest.raises(UpstreamUnresolved) as caught:
        await bootstrap.names().wait("up.example", 1.0)
    assert "'up.example'" in caught.value.message
    assert "nobody there" in caught.value.message
    assert "forward.bootstrap" in caught.value.hint


async def test_a_name_is_resolved_through_bootstrap_and_asked() -> None:
    """On real sockets: the bootstrap resolver tells the address, the upstream there answers."""
    upstream = await ScriptedUpstream(lambda q, _: [(0.0, good(q))]).start()

    def bootstrap_script(query: bytes, _: str) -> list[tuple[float, bytes]]:
        question = question_of(query)
        records = [record(HERE, A, b"\x7f\x00\x00\x01")] if question[-3] == A else []
        return [(0.0, response(query[:2], question, records))]

    bootstrap = await ScriptedUpstream(bootstrap_script).start()
    conf = config((".", [f"up.example:{upstream.port}"]), bootstrap=[bootstrap.address])
    try:
        async with forwarding(conf) as forwarder:
            rule = forwarder.rules.rules[0]
            budget = Budget(10, 10_000, 5, time.monotonic() + 5)
            result = await forwarder.resolve(rule, Question(name("a.example."), A), budget)
            assert result.upstream == upstream.address
            assert bootstrap.asked("up.example.") == 2
            assert upstream.asked("a.example.") == 1
    finally:
        await upstream.stop()
        await bootstrap.stop()


async def test_other_upstreams_are_unaffected_by_one_that_does_not_resolve() -> None:
    """A rule with a dead name and an address uses the address at once; a rule with the name alone says why it fails."""
    upstream = await ScriptedUpstream(lambda q, _: [(0.0, good(q))]).start()
    nobody = await ScriptedUpstream(lambda q, _: [(0.0, response(q[:2], question_of(q), rcode=3))]).start()
    conf = config((".", ["gone.example", upstream.address]), ("alone.", ["gone.example"]), bootstrap=[nobody.address])
    try:
        async with forwarding(conf) as forwarder:
            for text, works in (("a.example.", True), ("a.alone.", False)):
                rule = forwarder.match(name(text))
                assert rule is not None
                asking = forwarder.resolve(rule, Question(name(text), A), Budget(10, 10_000, 5, time.monotonic() + 3))
                if works:
                    assert (await asking).upstream == upstream.address
                else:
                    with pytest.raises(UpstreamUnresolved, match=r"gone\.example"):
                        await asking
    finally:
        await upstream.stop()
        await nobody.stop()


async def test_a_name_that_leads_to_ourselves_is_not_asked() -> None:
    """The runtime guard: a host name whose address is one of ours is refused when it is resolved."""

    def bootstrap_script(query: bytes, _: str) -> list[tuple[float, bytes]]:
        question = question_of(query)
        return [
            (
                0.0,
                response(
                    query[:2],
                    question,
                    [record(HERE, question[-3], b"\x7f\0\0\1" if question[-3] == A else bytes(15) + b"\1")],
                ),
            )
        ]

    bootstrap = await ScriptedUpstream(bootstrap_script).start()
    conf = config((".", ["me.example:5399"]), bootstrap=[bootstrap.address])
    try:
        async with forwarding(conf) as forwarder:
            forwarder.update(conf, OwnAddresses([("0.0.0.0", 5399)]))
            with pytest.raises(UpstreamUnresolved, match="leads back"):
                await forwarder.resolve(
                    forwarder.rules.rules[0], Question(name("a."), A), Budget(10, 10_000, 5, time.monotonic() + 3)
                )
    finally:
        await bootstrap.stop()


async def test_closing_ends_look_ups() -> None:
    """Nothing is left behind."""

    async def never(question: Question, budget: Budget) -> Reply:
        await asyncio.sleep(3600)
        raise AssertionError

    host = HostNames(never, time.monotonic, lambda: 0.5)
    host.known("up.example")
    await host.close()
    assert not [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]


def test_the_systems_resolvers(tmp_path: Path) -> None:
    """resolv.conf is read as the C library does: three at most, nonsense passed over."""
    path = tmp_path / "resolv.conf"
    assert system_resolvers(path) == []
    path.write_text("# c\nsearch x\nnameserver 192.0.2.1\nnameserver nonsense\n nameserver ::1\nnameserver 192.0.2.2\n")
    assert system_resolvers(path) == ["192.0.2.1", "::1", "192.0.2.2"]
