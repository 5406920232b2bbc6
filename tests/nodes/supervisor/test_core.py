"""The supervisor's state machine, with a virtual clock and no process."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raydns.nodes.supervisor import events as ev
from raydns.nodes.supervisor.backoff import Backoff
from raydns.nodes.supervisor.core import SupervisorCore
from raydns.nodes.supervisor.ingress_core import LEAVE_TIMEOUT_S, START_TIMEOUT_S, Phase
from raydns.nodes.supervisor.plan import RayPlan
from raydns.nodes.supervisor.ray_core import RayPhase

PLAN = RayPlan(["ray"], ready=["ready"], bootstrap=["bootstrap"])


def serving(ray: RayPlan | None = None) -> SupervisorCore:
    """A core whose first ingress serves since time 0."""
    core = SupervisorCore(ray)
    core.handle(ev.Started(ingress=False, ray=False), 0.0)
    core.handle(ev.IngressReady(1), 0.0)
    return core


def test_start_and_ready() -> None:
    """Ingress and Ray start side by side; readiness is reported once."""
    core = SupervisorCore(PLAN)
    commands = core.handle(ev.Started(ingress=False, ray=False), 0.0)
    assert commands == [ev.StartIngress(1), ev.StartRay(1), ev.RunJob(1, "ready")]
    assert core.handle(ev.IngressReady(1), 1.0) == [ev.ReportReady()]
    assert core.handle(ev.IngressReady(1), 1.0) == []
    assert core.ingress.serving == 1


def test_an_adopted_ingress_serves_at_once() -> None:
    """What an earlier supervisor left is not started again; its death is noticed like any other."""
    core = SupervisorCore(None)
    assert core.handle(ev.Started(ingress=True, ray=False), 0.0) == [ev.ReportReady()]
    assert core.handle(ev.IngressExited(0, "killed"), 20.0) == []
    assert core.wake_at == 20.0
    assert core.handle(ev.TimePassed(), 20.0) == [ev.StartIngress(1, fresh=False)]


def test_backoff_doubles_to_its_bound_and_starts_over() -> None:
    """0.1 s doubling to 10 s; ten stable seconds are forgiven, and what was stable comes back at once."""
    backoff = Backoff()
    waits = [backoff.after(0.0) for _ in range(12)]
    assert waits[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]
    assert max(waits) == 10.0
    assert backoff.after(9.9) == 10.0
    assert backoff.after(10.0) == 0.0
    assert backoff.after(0.0) == 0.1
    backoff.failures = 10**6
    assert backoff.after(0.0) == 10.0


def test_trouble_is_told_once_and_only_before_the_first_answer() -> None:
    """Three failed starts in a row are told to whoever waits; it goes on, and later crashes are not "trouble"."""
    core = SupervisorCore(None)
    core.handle(ev.Started(ingress=False, ray=False), 0.0)
    told = []
    now = 0.0
    for number in range(1, 6):
        told += core.handle(ev.IngressExited(number, "exit 3"), now)
        assert core.wake_at is not None
        now = core.wake_at
        assert core.handle(ev.TimePassed(), now) == [ev.StartIngress(number + 1, fresh=False)]
    assert told == [ev.ReportTrouble("exit 3")]
    assert core.handle(ev.IngressReady(6), now) == [ev.ReportReady()]


def test_takeover_hands_over_in_one_step() -> None:
    """The old one is told to leave in the very step in which the new one is ready, not before."""
    core = serving()
    assert core.handle(ev.TakeoverAsked(), 1.0) == [ev.StartIngress(2)]
    assert core.handle(ev.TakeoverAsked(), 1.1) == []
    assert core.ingress.serving == 1
    assert core.handle(ev.IngressReady(2), 2.0) == [ev.ReleaseIngress(1), ev.ReportTakeover(2)]
    assert core.ingress.phases() == {1: Phase.LEAVING, 2: Phase.SERVING}
    assert core.handle(ev.IngressExited(1, "drained"), 3.0) == []
    assert core.ingress.phases() == {2: Phase.SERVING}
    assert core.wake_at is None


def test_failed_takeover_changes_nothing() -> None:
    """A new ingress that dies, or is never ready, leaves the old one serving and is reported."""
    core = serving()
    core.handle(ev.TakeoverAsked(), 1.0)
    report = core.handle(ev.IngressExited(2, "exit 3"), 1.5)
    assert report == [ev.ReportTakeover(1, "the new ingress did not start: exit 3")]
    assert core.ingress.phases() == {1: Phase.SERVING}
    core.handle(ev.TakeoverAsked(), 2.0)
    assert core.wake_at == 2.0 + START_TIMEOUT_S
    assert core.handle(ev.TimePassed(), 2.0 + START_TIMEOUT_S) == [ev.KillIngress(3)]
    assert core.handle(ev.TimePassed(), 2.1 + START_TIMEOUT_S) == []
    assert core.ingress.serving == 1


def test_the_old_one_dies_while_the_new_one_comes() -> None:
    """No third one is started: the second is already on its way, and its readiness is the take-over."""
    core = serving()
    core.handle(ev.TakeoverAsked(), 1.0)
    assert core.handle(ev.IngressExited(1, "killed"), 1.1) == []
    assert core.ingress.restart_at is None
    assert core.handle(ev.IngressReady(2), 1.5) == [ev.ReportTakeover(2)]


def test_takeover_while_waiting_to_restart_starts_now() -> None:
    """An operator's wish does not wait for the back-off."""
    core = serving()
    core.handle(ev.IngressExited(1, "crash"), 0.5)
    assert core.ingress.restart_at == 0.6
    assert core.handle(ev.TakeoverAsked(), 0.51) == [ev.StartIngress(2)]
    assert core.ingress.restart_at is None


def test_one_that_does_not_leave_is_ended() -> None:
    """Draining has an end."""
    core = serving()
    core.handle(ev.TakeoverAsked(), 1.0)
    core.handle(ev.IngressReady(2), 2.0)
    assert core.handle(ev.TimePassed(), 2.0 + LEAVE_TIMEOUT_S) == [ev.KillIngress(1)]


def test_orderly_stop_drains_before_ray_goes() -> None:
    """The ingress leaves first, while Ray still answers its misses; then Ray; then the end, once."""
    core = serving(PLAN)
    assert core.handle(ev.StopAsked(), 5.0) == [ev.ReleaseIngress(1)]
    assert core.handle(ev.StopAsked(), 5.1) == []
    assert core.handle(ev.IngressExited(1, "drained"), 6.0) == [ev.ClearRay(1)]
    assert core.handle(ev.RayExited(1, "ended"), 6.5) == []
    assert core.handle(ev.RayCleared(1), 7.0) == [ev.Finish()]
    assert core.handle(ev.TimePassed(), 8.0) == []
    assert core.wake_at is None


def test_immediate_stop_kills() -> None:
    """A second signal ends everything by force, also in the middle of an orderly end."""
    core = serving(PLAN)
    core.handle(ev.StopAsked(), 5.0)
    assert core.handle(ev.StopAsked(immediate=True), 5.1) == [ev.KillIngress(1), ev.ClearRay(1, immediate=True)]
    assert core.handle(ev.RayCleared(1), 5.2) == []
    assert core.handle(ev.IngressExited(1, "killed"), 5.3) == [ev.Finish()]


def test_stop_during_start_ends_what_starts() -> None:
    """A node that is told to stop before it answered ends at once; a late readiness changes nothing."""
    core = SupervisorCore(None)
    core.handle(ev.Started(ingress=False, ray=False), 0.0)
    assert core.handle(ev.StopAsked(), 0.1) == [ev.KillIngress(1)]
    assert core.handle(ev.IngressReady(1), 0.2) == []
    assert core.handle(ev.IngressExited(1, "killed"), 0.3) == [ev.Finish()]


def test_stop_without_anything_running_finishes_at_once() -> None:
    """While it waits for a restart there is nothing to end."""
    core = serving()
    core.handle(ev.IngressExited(1, "crash"), 0.1)
    assert core.handle(ev.StopAsked(), 0.15) == [ev.Finish()]
    assert core.handle(ev.TimePassed(), 9.0) == []


def test_ray_jobs_follow_each_other_and_are_repeated() -> None:
    """Ready, again until it is; then bootstrap, again until it is done; then it runs."""
    core = serving(PLAN)
    core.handle(ev.JobEnded(1, "ready", ok=False), 1.0)
    assert core.wake_at == 1.25
    assert core.handle(ev.TimePassed(), 1.25) == [ev.RunJob(1, "ready")]
    assert core.handle(ev.JobEnded(1, "ready", ok=True), 2.0) == [ev.RunJob(1, "bootstrap")]
    core.handle(ev.JobEnded(1, "bootstrap", ok=False), 3.0)
    assert core.statistics()["ray"]["phase"] == "joining"
    assert core.handle(ev.TimePassed(), 3.25) == [ev.RunJob(1, "bootstrap")]
    core.handle(ev.JobEnded(1, "bootstrap", ok=True), 4.0)
    assert core.ray.phase is RayPhase.RUNNING
    assert core.wake_at is None


def test_ray_is_cleared_before_it_is_started_again() -> None:
    """After its end nothing starts before everything of it is gone; late news of the old one are ignored."""
    core = serving(PLAN)
    assert core.handle(ev.RayExited(1, "gcs died"), 2.0) == [ev.ClearRay(1)]
    assert core.handle(ev.JobEnded(1, "ready", ok=True), 2.1) == []
    assert core.handle(ev.RayExited(1, "again"), 2.2) == []
    core.handle(ev.RayCleared(1), 3.0)
    assert core.ray.phase is RayPhase.WAITING
    assert core.wake_at == 3.1
    assert core.handle(ev.TimePassed(), 3.1) == [ev.StartRay(2), ev.RunJob(2, "ready")]
    assert core.handle(ev.RayExited(1, "old news"), 3.2) == []


def test_a_plan_without_jobs_runs_at_once() -> None:
    """A worker machine has neither a ready nor a bootstrap command."""
    core = SupervisorCore(RayPlan(["ray"]))
    assert core.handle(ev.Started(ingress=True, ray=False), 0.0) == [ev.ReportReady(), ev.StartRay(1)]
    assert core.ray.phase is RayPhase.RUNNING


def test_an_adopted_ray_is_asked_and_bootstrapped_again() -> None:
    """Ray that an earlier supervisor left is kept, but nobody knows whether its controller was made."""
    core = SupervisorCore(PLAN)
    assert core.handle(ev.Started(ingress=True, ray=True), 0.0) == [ev.ReportReady(), ev.RunJob(0, "ready")]
    assert core.handle(ev.JobEnded(0, "ready", ok=True), 1.0) == [ev.RunJob(0, "bootstrap")]
    assert core.handle(ev.RayExited(0, "killed"), 2.0) == [ev.ClearRay(0)]


class World(RuleBasedStateMachine):
    """Any order of starts, ends, time, take-overs and stops."""

    def __init__(self) -> None:
        super().__init__()
        self.core = SupervisorCore(PLAN)
        self.now = 0.0
        self.starting: set[int] = set()
        self.reading: set[int] = set()
        self.leaving: set[int] = set()
        self.ray: int | None = None
        self.clearing: int | None = None
        self.jobs: set[tuple[int, Any]] = set()
        self.finished = 0
        self.last_exit = 0.0

    @initialize(ingress=st.booleans(), ray=st.booleans())
    def begin(self, ingress: bool, ray: bool) -> None:
        """Whatever was found."""
        if ingress:
            self.reading.add(0)
        if ray:
            self.ray = 0
        self.say(ev.Started(ingress, ray))

    def say(self, event: ev.Event) -> None:
        """The core hears it, and the world obeys."""
        for command in self.core.handle(event, self.now):
            assert not self.finished, command
            match command:
                case ev.StartIngress(number):
                    assert not self.starting
                    assert not self.core.stopping
                    self.starting.add(number)
                case ev.ReleaseIngress(number):
                    assert number in self.reading
                    self.reading.discard(number)
                    self.leaving.add(number)
                case ev.KillIngress(number):
                    assert number in self.starting | self.reading | self.leaving
                case ev.StartRay(number):
                    assert self.ray is None
                    assert self.clearing is None
                    self.ray = number
                case ev.ClearRay(number):
                    self.clearing = number
                    self.jobs.clear()
                case ev.RunJob(number, job):
                    assert not self.jobs
                    self.jobs.add((number, job))
                case ev.Finish():
                    self.finished += 1
                    assert not self.starting | self.reading | self.leaving
                    assert self.clearing is None

    @precondition(lambda self: self.starting)
    @rule()
    def becomes_ready(self) -> None:
        """The one that starts says that it answers."""
        (number,) = self.starting
        if not self.core.stopping:
            self.starting.clear()
            self.reading.add(number)
        self.say(ev.IngressReady(number))

    @precondition(lambda self: self.starting | self.reading | self.leaving)
    @rule(data=st.data())
    def exits(self, data: st.DataObject) -> None:
        """Any of them ends."""
        number = data.draw(st.sampled_from(sorted(self.starting | self.reading | self.leaving)))
        if number not in self.leaving:
            self.last_exit = self.now
        for group in (self.starting, self.reading, self.leaving):
            group.discard(number)
        self.say(ev.IngressExited(number, "ended"))

    @precondition(lambda self: self.ray is not None)
    @rule()
    def ray_exits(self) -> None:
        """Ray ends."""
        number, self.ray = self.ray, None
        assert number is not None
        self.say(ev.RayExited(number, "ended"))

    @precondition(lambda self: self.clearing is not None)
    @rule()
    def ray_is_cleared(self) -> None:
        """The last process of Ray is gone."""
        number, self.clearing, self.ray = self.clearing, None, None
        assert number is not None
        self.say(ev.RayCleared(number))

    @precondition(lambda self: self.jobs)
    @rule(ok=st.booleans())
    def job_ends(self, ok: bool) -> None:
        """A one-shot command ends."""
        number, job = self.jobs.pop()
        self.say(ev.JobEnded(number, job, ok))

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        """The clock goes on, and rings when asked to."""
        self.now += seconds
        if self.core.wake_at is not None and self.core.wake_at <= self.now:
            self.say(ev.TimePassed())

    @rule()
    def takeover(self) -> None:
        """An operator asks for a new ingress."""
        if not self.finished:
            self.say(ev.TakeoverAsked())

    @rule(immediate=st.booleans(), really=st.integers(0, 9))
    def stop(self, immediate: bool, really: int) -> None:
        """Sometimes somebody ends the node."""
        if really == 0:
            self.say(ev.StopAsked(immediate))

    @invariant()
    def one_reads(self) -> None:
        """Never two ingresses that read and were not told to leave, never two that start."""
        assert len(self.reading) <= 1
        assert len(self.starting) <= 1

    @invariant()
    def somebody_comes(self) -> None:
        """While it runs, an ingress reads, starts, or has a date within ten seconds."""
        if self.core.stopping or self.reading or self.starting:
            return
        at = self.core.ingress.restart_at
        assert at is not None
        assert -1e-6 <= at - self.last_exit <= 10.0 + 1e-6

    def teardown(self) -> None:
        """Whatever happened, a stop brings it to its end."""
        self.say(ev.StopAsked())
        for _ in range(100):
            if self.finished:
                break
            if self.starting | self.reading | self.leaving:
                number = min(self.starting | self.reading | self.leaving)
                for group in (self.starting, self.reading, self.leaving):
                    group.discard(number)
                self.say(ev.IngressExited(number, "ended"))
            elif self.clearing is not None:
                self.ray_is_cleared()
        assert self.finished == 1


World.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestWorld = World.TestCase
