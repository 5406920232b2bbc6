"""``ZoneShardCore``: loads, reloads, restarts, answers; and the actor's shell over a real stream."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dns.message
import msgspec
import pytest

from raydns.actors.zone.core import ZoneShardCore
from raydns.actors.zone.problems import MasterFileError
from raydns.actors.zone.store import ZoneStore
from raydns.nodes.images import open_image
from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.schemas import batch, names
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryItem, Room
from raydns.schemas.cluster import Endpoint, ImageRef, ZoneEntry
from raydns.schemas.errors import StateError

N = names.from_text
HEAD = "$TTL 300\n@ SOA ns hostmaster {serial} 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n"


@pytest.fixture(name="state")
def state_fixture() -> Iterator[StateDir]:
    """A state directory with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    yield StateDir(path / "s").create()
    shutil.rmtree(path, ignore_errors=True)


def core(state: StateDir, known: list[ZoneEntry] | None = None) -> tuple[ZoneShardCore, ZoneStore]:
    """A started shard."""
    store = ZoneStore(state.zone_store(1), 1)
    ticks = iter(range(1_000_000, 9_000_000, 10))
    made = ZoneShardCore(1, store, Known(state), now_s=lambda: 1234.5, now_us=lambda: next(ticks))
    made.start(known or [])
    return made, store


def query(name: str, qtype: str = "A", **more: object) -> QueryItem:
    """A query as the pipeline sends it up."""
    message = dns.message.make_query(name, qtype).to_wire()
    return QueryItem(7, message, 1000, **more)  # type: ignore[arg-type]


def read(item: AnswerItem) -> dns.message.Message:
    """The answer's message."""
    return dns.message.from_wire(item.message)


def test_load_publishes_and_answers(state: StateDir) -> None:
    """A loaded zone has an image on disk under its SHA-256, an entry, and answers with flags and time stamps."""
    shard, store = core(state)
    entry = shard.load(N("Example."), HEAD.format(serial=5), "x.zone")
    assert (entry.apex, entry.serial, entry.epoch, entry.shard, entry.records) == (N("example."), 5, 1, 1, 3)
    assert entry.image is not None
    assert open_image(Known(state).image_path(entry.image.sha256)).zones[0].serial == 5
    answer = shard.answer(query("nS.example.", state_version=9, trace_flags=1))
    assert read(answer).answer[0].to_text() == "ns.example. 300 IN A 192.0.2.1"
    assert answer.flags == AnswerFlag.AUTHORITATIVE | AnswerFlag.SHAREABLE | AnswerFlag.TRACED
    assert (answer.slot, answer.fresh_s, answer.stale_s, answer.began) == (7, 0, 0, 9)
    assert answer.message[:2] == b"\0\0"
    stamp = batch.stamps(answer.rooms)[0]
    assert (stamp.room, stamp.outcome, stamp.instance) == (Room.ZONE, Outcome.HIT, 1)
    negative = shard.answer(query("no.example."))
    assert batch.stamps(negative.rooms)[0].outcome == Outcome.NEGATIVE
    assert batch.decode_answers(batch.encode_answers([answer, negative])) == [answer, negative]
    store.close()


def test_a_faulty_reload_keeps_the_old_zone(state: StateDir) -> None:
    """Errors in the new file change nothing: entry, image and answers stay."""
    shard, store = core(state)
    entry = shard.load(N("example."), HEAD.format(serial=1), "x.zone")
    with pytest.raises(MasterFileError, match=r"x\.zone:5:5"):
        shard.load(N("example."), HEAD.format(serial=2) + "a A nonsense\n", "x.zone")
    assert shard.entries() == [entry]
    assert read(shard.answer(query("ns.example."))).answer
    store.close()


def test_reload_raises_the_epoch_and_the_same_text_changes_nothing(state: StateDir) -> None:
    """New contents get a new epoch and image; the same contents none; a serial not raised is a warning."""
    shard, store = core(state)
    first = shard.load(N("example."), HEAD.format(serial=1), "x.zone")
    assert shard.load(N("example."), HEAD.format(serial=1) + "; comment\n", "x.zone") == first
    second = shard.load(N("example."), HEAD.format(serial=2) + "a A 192.0.2.2\n", "x.zone")
    assert (second.epoch, second.serial) == (2, 2)
    assert second.image != first.image
    third = shard.load(N("example."), HEAD.format(serial=2) + "a A 192.0.2.3\n", "x.zone")
    assert third.epoch == 3
    zone = shard.zone(N("example."))
    assert zone is not None
    assert "not newer" in zone.warnings[0]
    assert read(shard.answer(query("a.example."))).answer[0].to_text().endswith("192.0.2.3")
    shard.close_retired()
    assert read(shard.answer(query("ns.example."))).answer
    store.close()


def test_restart_serves_again_and_makes_missing_images(state: StateDir) -> None:
    """After a restart the zones are there; an image file that is gone is made again, octet for octet."""
    shard, store = core(state)
    entry = shard.load(N("example."), HEAD.format(serial=1), "x.zone")
    store.close()
    assert entry.image is not None
    Known(state).image_path(entry.image.sha256).unlink()
    shard, store = core(state)
    assert shard.entries() == [entry]
    assert read(shard.answer(query("ns.example."))).answer
    store.close()


@pytest.mark.parametrize("damage", ["unlinked", "overwritten", "replaced"])
def test_an_image_that_is_lost_while_it_runs_is_made_again(state: StateDir, damage: str) -> None:
    """The file is there again, octet for octet, and answered from; until then no answer is made of what is left."""
    shard, store = core(state)
    entry = shard.load(N("example."), HEAD.format(serial=1), "x.zone")
    other = shard.load(N("other."), HEAD.format(serial=1), "y.zone")
    assert entry.image is not None
    path = Known(state).image_path(entry.image.sha256)
    good = path.read_bytes()
    if damage == "overwritten":
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.write(b"\xff" * len(good))
        answer = shard.answer(query("ns.example."))
        assert (read(answer).rcode(), answer.ede) == (2, 14)
    else:
        path.unlink()
        if damage == "replaced":
            path.write_bytes(b"garbage")
    shard.mend()
    shard.close_retired()
    assert path.read_bytes() == good
    assert read(shard.answer(query("ns.example."))).answer
    assert read(shard.answer(query("ns.other."))).answer
    assert shard.entries() == [entry, other]
    shard.mend()
    store.close()


def test_an_image_that_cannot_be_made_again_is_said(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that takes nothing costs no more than the image: what is mapped goes on being answered."""
    shard, store = core(state)
    entry = shard.load(N("example."), HEAD.format(serial=1), "x.zone")
    assert entry.image is not None
    Known(state).image_path(entry.image.sha256).unlink()

    def full(*_: object) -> ImageRef:
        raise StateError("cannot keep the image: No space left on device", where="x", hint="make room")

    monkeypatch.setattr(Known, "put_image", full)
    shard.mend()
    assert "image not made again" in caplog.text
    assert read(shard.answer(query("ns.example."))).answer
    store.close()


def test_an_empty_store_never_empties_the_cluster(state: StateDir) -> None:
    """Zones that the snapshot names as ours stay published and answered when the store was lost."""
    shard, store = core(state)
    entry = shard.load(N("example."), HEAD.format(serial=1), "x.zone")
    store.close()
    shutil.rmtree(state.zone_store(1))
    other = msgspec.structs.replace(entry, apex=N("other."), shard=2)
    shard, store = core(state, [entry, other])
    assert shard.entries() == [entry]
    assert read(shard.answer(query("ns.example."))).answer
    again = shard.load(N("example."), HEAD.format(serial=2), "x.zone")
    assert again.epoch == 2
    assert shard.unload(N("Example."))
    assert not shard.unload(N("example."))
    assert shard.entries() == []
    store.close()


def test_queries_that_cannot_be_answered(state: StateDir) -> None:
    """A foreign name, a malformed message, an update: SERVFAIL with EDE, FORMERR, NOTIMP; never shared or cached."""
    shard, store = core(state)
    shard.load(N("example."), HEAD.format(serial=1), "x.zone")
    foreign = shard.answer(query("other."))
    assert (read(foreign).rcode(), foreign.ede, foreign.flags) == (2, 14, AnswerFlag.LOCAL_FAILURE)
    for octets in (b"", b"\1", bytes(12), b"\0\0\x80" + bytes(9), b"\0" * 5 + b"\1" + bytes(6) + b"\xff"):
        answer = shard.answer(QueryItem(1, octets, 10))
        assert answer.message[3] & 15 == 1
        assert answer.flags & AnswerFlag.LOCAL_FAILURE
    update = dns.message.make_query("example.", "SOA").to_wire()
    answer = shard.answer(QueryItem(1, update[:2] + b"\x28\0" + update[4:], 10))
    assert read(answer).rcode() == 4
    assert shard.statistics()["queries"] == 7
    assert {family.name for family in shard.metrics.families()} >= {"raydns_zone_queries_total", "raydns_zone_zones"}
    store.close()


def test_the_actor_answers_over_its_stream(state: StateDir) -> None:
    """The shell: load, zones, show, answers over a Unix socket, metrics, drain; a restart finds its zones."""
    from raydns.actors.zone.actor import ZoneActor
    from raydns.nodes.streams.requests import Requests

    endpoint = Endpoint("zone", 1, 1, "n", "m", str(state.stream_socket("zone", 1)))
    actor = ZoneActor(str(state.path), msgspec.msgpack.encode(endpoint))
    assert actor.ready()
    entry = msgspec.msgpack.decode(actor.load(N("example."), HEAD.format(serial=1), "x.zone"), type=ZoneEntry)
    assert msgspec.msgpack.decode(actor.zones(), type=list[ZoneEntry]) == [entry]
    assert msgspec.msgpack.decode(actor.show(N("example.")))["file"] == "x.zone"
    with pytest.raises(MasterFileError):
        actor.load(N("example."), "junk\n", "x.zone")

    async def ask() -> AnswerItem | None:
        done: asyncio.Future[AnswerItem | None] = asyncio.get_running_loop().create_future()
        up = asyncio.Event()
        channel = Requests(endpoint, "m", on_state=lambda connected: up.set() if connected else None)
        channel.start()
        try:
            await asyncio.wait_for(up.wait(), 5)
            channel.send(query("ns.example.", trace_flags=1, trace_id=b"t" * 16), done.set_result)
            return await asyncio.wait_for(done, 5)
        finally:
            await channel.close()

    answer = asyncio.run(ask())
    assert answer is not None
    assert read(answer).answer[0].to_text() == "ns.example. 300 IN A 192.0.2.1"
    assert actor.statistics()["in_flight"] == 0
    assert b"raydns_zone_queries_total" in actor.metrics()
    assert actor.refresh() == 0
    assert actor.drain(1)
    again = ZoneActor(str(state.path), msgspec.msgpack.encode(endpoint))
    assert msgspec.msgpack.decode(again.zones(), type=list[ZoneEntry]) == [entry]
    assert again.drain(1)
