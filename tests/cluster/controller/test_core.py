"""The controller's decisions under a virtual clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.cluster.controller import events as ev
from raydns.cluster.controller.core import KILL_GRACE_S, START_GRACE_S, ControllerCore, State
from raydns.schemas import names
from raydns.schemas.cluster import FlushTable, LoadReport, Snapshot, Version, ZoneEntry, first_snapshot
from raydns.schemas.config import Config
from raydns.schemas.errors import CommandError

SEED = 7


@dataclass
class World:
    """A controller with machines that install at once what it publishes, unless told otherwise."""

    config: Config = field(default_factory=Config)
    machines: tuple[str, ...] = ("m1",)
    now: float = 100.0
    commands: list[ev.Command] = field(default_factory=list)
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    core: ControllerCore = field(init=False)
    dead: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.core = ControllerCore(lambda kind, index: f"/run/{kind}-{index}.sock", SEED)
        self.core.adopt([first_snapshot(self.config.model_dump(mode="json"), SEED)], [], self.now)

    def turn(self, seconds: float = 0.5) -> list[ev.Command]:
        """One round: nodes seen, machines polled, one step; actors that are created become ready at once."""
        self.now += seconds
        alive = frozenset(f"node-{m}" for m in self.machines if m not in self.dead)
        done = self.core.handle(ev.NodesSeen(alive), self.now)
        for machine in self.machines:
            if machine not in self.dead:
                known = Version(0, 0) if machine in self.stuck else self.core.version
                report = LoadReport(machine, f"node-{machine}", known, True, actors=self.statistics)
                self.core.handle(ev.MachineReported(report, "127.0.0.1", machine == "m1"), self.now)
        done += self.core.step(self.now)
        for command in done:
            if isinstance(command, ev.CreateActor):
                self.core.handle(ev.ActorReady(command.endpoint.actor), self.now)
            elif isinstance(command, ev.StopActor):
                self.core.handle(ev.ActorStopped(command.endpoint.actor), self.now)
        self.commands += done
        return done

    def settle(self, turns: int = 8) -> None:
        """Rounds until nothing more is to be done."""
        for _ in range(turns):
            self.turn()

    def ready(self, kind: str) -> list[str]:
        """Names of the ready actors of a kind."""
        return sorted(n for n, m in self.core.members.items() if m.endpoint.kind == kind and m.state is State.READY)

    @property
    def snapshot(self) -> Snapshot:
        assert self.core.snapshot is not None
        return self.core.snapshot


def test_a_first_start_creates_what_the_configuration_wants() -> None:
    """Proves that from an empty cluster come one agent, and the configured actors, in the published endpoints."""
    world = World()
    world.settle()
    assert [c.node for c in world.commands if isinstance(c, ev.EnsureAgent)] == ["node-m1"]
    assert world.ready("query") == ["query:0.g1", "query:1.g1"]
    assert world.ready("cache") == ["cache:0.g1"]
    assert world.ready("zone") == ["zone:0.g1"]
    assert world.ready("llm") == ["llm:0.g1"]
    assert world.ready("health") == ["health:0.g1"]
    assert {e.actor for e in world.snapshot.endpoints} == set(world.core.members)
    assert set(world.snapshot.ring.first) == {0}


def test_nothing_is_done_again_once_it_is_done() -> None:
    """Proves that a settled cluster gets no further command and no further version."""
    world = World()
    world.settle()
    version, count = world.core.version, len(world.commands)
    world.settle(20)
    assert world.core.version == version
    assert len(world.commands) == count


def test_scaling_down_ends_an_actor_only_after_every_machine_stopped_routing_to_it() -> None:
    """Proves the order: out of the published endpoints, installed everywhere, and only then ended."""
    world = World()
    world.settle()
    world.core.handle(ev.ScaleAsked("query", 1), world.now)
    world.stuck.add("m1")
    world.settle()
    draining = [e for e in world.snapshot.endpoints if e.draining]
    assert [e.kind for e in draining] == ["query"]
    assert not any(isinstance(c, ev.StopActor) for c in world.commands)
    world.stuck.clear()
    world.settle()
    assert [c.endpoint.actor for c in world.commands if isinstance(c, ev.StopActor)] == [draining[0].actor]
    assert world.ready("query") == ["query:0.g1"]


def test_scaling_up_again_never_reuses_a_socket_that_is_still_held() -> None:
    """Proves that a new actor takes another index, or a later generation once the former holder has gone."""
    world = World()
    world.settle()
    world.core.handle(ev.ScaleAsked("query", 1), world.now)
    world.stuck.add("m1")
    world.turn()
    world.core.handle(ev.ScaleAsked("query", 2), world.now)
    world.turn()
    holders = [m.endpoint.path for m in world.core.members.values() if m.endpoint.kind == "query"]
    assert len(holders) == len(set(holders)) == 3
    world.stuck.clear()
    world.settle()
    assert len(world.ready("query")) == 2


@pytest.mark.parametrize(
    ("kind", "count", "words"),
    [
        ("query", 0, "not between 1 and 8"),
        ("query", 9, "query.pool_max"),
        ("agent", 2, "cannot be scaled"),
        ("zone", 0, "own zones"),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused_with_the_reason(kind: str, count: int, words: str) -> None:
    """Proves that an operator reads what is wrong and which option to change."""
    world = World()
    world.settle()
    with pytest.raises(CommandError) as caught:
        world.core.handle(ev.ScaleAsked(kind, count), world.now)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_a_new_term_publishes_everything_and_loses_nothing() -> None:
    """Proves that a controller which starts anew takes over endpoints, zones, scale and flushes, in a higher term."""
    world = World()
    world.settle()
    world.core.handle(ev.ScaleAsked("query", 3), world.now)
    world.core.handle(ev.ZonesReported(0, [ZoneEntry(b"\x07example\x00", 0, 0, 5, 1, None)]), world.now)
    world.core.handle(ev.FlushAsked(b"\x03www\x07example\x00", False), world.now)
    world.settle()
    old = world.snapshot
    core = ControllerCore(lambda kind, index: f"/run/{kind}-{index}.sock", SEED)
    core.adopt([first_snapshot({}, SEED), old], list(world.core.members), world.now)
    assert core.snapshot is not None
    assert core.snapshot.version.term == old.version.term + 1
    for section in ("endpoints", "zones", "scale", "flushes", "ring"):
        assert getattr(core.snapshot, section) == getattr(old, section)
    world.core = core
    world.commands.clear()
    world.settle()
    assert not any(isinstance(c, (ev.CreateActor, ev.StopActor, ev.RemoveActor)) for c in world.commands)


def test_without_a_remembered_snapshot_nothing_is_published() -> None:
    """Proves that a controller without memory refuses to start rather than empty the machines."""
    core = ControllerCore(lambda kind, index: "", SEED)
    with pytest.raises(CommandError, match="no machine remembers"):
        core.adopt([], [], 0.0)
    assert core.step(1.0) == []
    assert core.snapshot is None


def test_actors_that_no_snapshot_names_are_strays() -> None:
    """Proves that what was created just before a crash is found, and others' actors are left alone."""
    world = World()
    world.settle()
    assert world.core.strays(["query:9.g1", "query:0.g1", "agent:abc", "controller"]) == ["query:9.g1"]


def test_k_failed_probes_kill_once_and_a_silent_actor_gets_a_new_generation() -> None:
    """Proves that fewer than k do nothing, k kill once, and one that stays silent is replaced."""
    world = World()
    world.settle()
    bad = ev.HealthReported([ev.Observation("query:0.g1", False, 2, "no answer within 2 s")])
    assert world.core.handle(bad, world.now) == []
    worse = ev.HealthReported([ev.Observation("query:0.g1", False, 3, "no answer within 2 s")])
    kills = world.core.handle(worse, world.now)
    assert [type(c) for c in kills] == [ev.KillProcess]
    assert world.core.handle(worse, world.now) == []
    world.turn(KILL_GRACE_S + 1)
    world.settle()
    assert world.ready("query") == ["query:0.g2", "query:1.g1"]
    assert [c.endpoint.actor for c in world.commands if isinstance(c, ev.RemoveActor)] == ["query:0.g1"]


def test_an_actor_that_comes_back_is_not_replaced() -> None:
    """Proves that one good probe after a kill clears the case."""
    world = World()
    world.settle()
    world.core.handle(ev.HealthReported([ev.Observation("query:0.g1", False, 3, "silent")]), world.now)
    world.core.handle(ev.HealthReported([ev.Observation("query:0.g1", True, 0)]), world.now + 1)
    world.turn(KILL_GRACE_S + 1)
    world.settle()
    assert world.ready("query") == ["query:0.g1", "query:1.g1"]


def test_an_actor_that_cannot_start_is_tried_again_ever_more_slowly() -> None:
    """Proves that a failing start backs off instead of spinning."""
    world = World()
    world.settle()
    tries = 0
    world.core.handle(ev.ActorLost("query:0.g1", "no memory"), world.now)
    for _ in range(240):  # two minutes
        world.now += 0.5
        world.core.handle(ev.NodesSeen(frozenset({"node-m1"})), world.now)
        report = LoadReport("m1", "node-m1", world.core.version, True)
        world.core.handle(ev.MachineReported(report, "127.0.0.1", True), world.now)
        for command in world.core.step(world.now):
            if isinstance(command, ev.CreateActor) and command.endpoint.kind == "query":
                tries += 1
                world.core.handle(ev.ActorLost(command.endpoint.actor, "no memory"), world.now)
    assert 5 <= tries <= 10


def test_an_actor_that_is_never_ready_is_given_up() -> None:
    """Proves that a start which hangs is replaced after its grace."""
    world = World()
    core = world.core
    core.handle(ev.NodesSeen(frozenset({"node-m1"})), world.now)
    core.handle(ev.MachineReported(LoadReport("m1", "node-m1", Version(0, 0), True), "127.0.0.1", True), world.now)
    created = [c.endpoint.actor for c in core.step(world.now) if isinstance(c, ev.CreateActor)]
    later = world.now + START_GRACE_S + 1
    core.handle(ev.MachineReported(LoadReport("m1", "node-m1", Version(0, 0), True), "127.0.0.1", True), later)
    removed = [c.endpoint.actor for c in core.step(later) if isinstance(c, ev.RemoveActor)]
    assert sorted(removed) == sorted(created)


def test_a_dead_node_takes_its_actors_with_it_and_others_take_over() -> None:
    """Proves that what stood on a dead node is made anew on those that live."""
    world = World(
        machines=("m1", "m2"), config=Config.model_validate({"cache": {"shards": 2}, "query": {"pool_size": 4}})
    )
    world.settle()
    assert {m.endpoint.machine for m in world.core.members.values() if m.endpoint.kind == "query"} == {"m1", "m2"}
    world.dead.add("m2")
    world.settle(12)
    assert len(world.ready("query")) == 4
    assert {m.endpoint.machine for m in world.core.members.values()} == {"m1"}
    assert set(world.snapshot.ring.first) == {0, 1}


def test_load_grows_the_pool_soon_and_shrinks_it_late() -> None:
    """Proves that sustained load above target grows the pool within bounds and quiet brings it back to the minimum."""
    world = World()
    world.settle()
    for actor in world.ready("query"):
        world.statistics[actor] = {"in_flight": 900.0}
    for _ in range(12):
        world.turn(1.0)
    assert len(world.ready("query")) > 2
    for _ in range(60):
        for actor in world.ready("query"):
            world.statistics[actor] = {"in_flight": 900.0}
        world.turn(1.0)
    assert len(world.ready("query")) == world.config.query.pool_max
    world.statistics = {}
    for _ in range(100):
        world.turn(1.0)
    assert len(world.ready("query")) == world.config.query.pool_max  # not yet: 120 s
    for _ in range(1300):
        world.turn(1.0)
    assert len(world.ready("query")) == world.config.query.pool_min


def test_a_changed_configuration_changes_sizes_that_it_names_and_keeps_the_others() -> None:
    """Proves that a reload resets only the scales whose configured value changed."""
    world = World()
    world.settle()
    world.core.handle(ev.ScaleAsked("llm", 2), world.now)
    world.core.handle(ev.ConfigChanged(Config.model_validate({"query": {"pool_size": 3}})), world.now)
    assert (world.snapshot.scale.query, world.snapshot.scale.llm) == (3, 2)


def flushed(world: World) -> set[str]:
    """Subtrees that the published state flushes."""
    return {names.to_text(f.name) for f in world.snapshot.flushes if f.subtree}


def test_a_rule_or_apex_that_comes_or_goes_flushes_what_was_cached_below_it() -> None:
    """Proves that answers from before a change of who answers a name are misses in every tier after it."""
    world = World()
    world.settle()
    rule = {"suffix": "corp.example.", "upstreams": [{"address": "127.0.0.1"}]}
    world.core.handle(ev.ConfigChanged(Config.model_validate({"forward": {"rules": [rule]}})), world.now)
    assert flushed(world) == {"corp.example."}
    world.core.handle(ev.ZonesReported(0, [ZoneEntry(b"\x03new\x00", 0, 0, 1, 1, None)]), world.now)
    assert flushed(world) == {"corp.example.", "new."}
    began = world.core.version.packed
    world.core.handle(ev.ZonesReported(0, [ZoneEntry(b"\x03new\x00", 0, 0, 2, 1, None)]), world.now)
    assert FlushTable(world.snapshot.flushes).newest <= began  # a new serial changes no cached answer
    world.core.handle(ev.ZonesReported(0, []), world.now)
    assert FlushTable(world.snapshot.flushes).covers(b"\x03www\x03new\x00", began)
    world.core.handle(ev.ConfigChanged(Config.model_validate({"llm": {"enabled": False}})), world.now)
    assert flushed(world) == {"corp.example.", "new.", "llm.example.", "."}


def test_many_flushes_are_merged_without_bringing_anything_back() -> None:
    """Proves that the list of flushes stays bounded and that every flushed name stays flushed."""
    world = World()
    flushed = []
    for number in range(1500):
        name = names.key(names.from_text(f"n{number}.example."))
        began = world.core.version.packed
        world.core.handle(ev.FlushAsked(name, False), world.now)
        flushed.append((name, began))
    assert len(world.snapshot.flushes) <= 1024
    table = FlushTable(world.snapshot.flushes)
    assert all(table.covers(name, began) for name, began in flushed)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["up", "down", "lose", "turn", "die", "live", "config"]), max_size=40))
def test_whatever_happens_the_cluster_converges(moves: list[str]) -> None:
    """Proves that after any sequence of events versions only rose, sockets are unshared, and the wanted sizes stand."""
    world = World(machines=("m1", "m2"))
    world.settle()
    last = world.core.version
    for move in moves:
        size = world.snapshot.scale.query
        if move == "up" and size < 8:
            world.core.handle(ev.ScaleAsked("query", size + 1), world.now)
        elif move == "down" and size > 1:
            world.core.handle(ev.ScaleAsked("query", size - 1), world.now)
        elif move == "lose" and world.ready("query"):
            world.core.handle(ev.ActorLost(world.ready("query")[0], "gone"), world.now)
        elif move == "die":
            world.dead.add("m2")
        elif move == "live":
            world.dead.discard("m2")
        elif move == "config":
            world.core.handle(ev.ConfigChanged(Config.model_validate({"query": {"pool_size": 2}})), world.now)
        world.turn()
        assert world.core.version >= last
        last = world.core.version
        sockets = [(m.endpoint.machine, m.endpoint.path) for m in world.core.members.values() if m.endpoint.path]
        assert len(sockets) == len(set(sockets))
    for _ in range(60):
        world.turn(2.0)
    assert len(world.ready("query")) == world.snapshot.scale.query
    assert len(world.ready("cache")) == 1
