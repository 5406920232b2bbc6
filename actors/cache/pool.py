"""Which query actor gets the next flight: the less busy of two random ones, never one that is silent or leaving."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from .flights import Channel

# Least-busy choice and a member that fails fast make a black hole (ray.md): three time-outs in a row suspend it.
TIMEOUTS_MAX: Final = 3
SUSPEND_S: Final = 5.0
SUSPEND_MAX_S: Final = 60.0


class Member:
    """A query actor of the pool."""

    __slots__ = ("channel", "draining", "suspended_until", "suspensions", "timeouts")

    def __init__(self, channel: Channel, *, draining: bool = False) -> None:
        self.channel = channel
        self.draining = draining
        self.timeouts = 0
        self.suspensions = 0
        self.suspended_until = 0.0


class Pool:
    """The query actors that this shard can reach.

    Args:
        random: a source of numbers in [0, 1).
        in_flight_max: what one of them takes at once (``query.in_flight_max``).
    """

    def __init__(self, random: Callable[[], float], in_flight_max: int) -> None:
        self.in_flight_max = in_flight_max
        self._random = random
        self._members: list[Member] = []
        self._by_channel: dict[int, Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def replace(self, channels: Iterable[tuple[Channel, bool]]) -> None:
        """The members from now on, each with whether it is draining; who stays keeps its record."""
        members = []
        for channel, draining in channels:
            member = self._by_channel.get(id(channel)) or Member(channel)
            member.draining = draining
            members.append(member)
        self._members = members
        self._by_channel = {id(member.channel): member for member in members}

    @property
    def channels(self) -> list[Channel]:
        """All members' channels."""
        return [member.channel for member in self._members]

    @property
    def in_flight(self) -> int:
        """Flights at all of them."""
        return sum(member.channel.in_flight for member in self._members)

    @property
    def reachable(self) -> bool:
        """Whether any takes work, full or not."""
        return any(not member.draining and member.channel.connected for member in self._members)

    def pick(self, now: float, avoid: Channel | None = None) -> Channel | None:
        """The one to send to, ``None`` if all are full or none is reachable.

        Args:
            now: the shard's clock.
            avoid: the one that has just been lost; taken only if it is back and alone.
        """
        members = self._members
        count = len(members)
        if count == 0:
            return None
        one = members[int(self._random() * count)]
        two = members[int(self._random() * count)]
        if count == 2:
            one, two = members
        best = self._better(one, two, now, avoid)
        if best is None and count > 1:
            for member in members:  # both were unfit: whoever is fit and least busy
                best = self._better(best or member, member, now, avoid)
        if best is None and avoid is not None:
            return self.pick(now)
        if best is None:  # with all suspended, the least bad is used
            rested = now + SUSPEND_MAX_S
            for member in members:
                best = self._better(best or member, member, rested, None)
        return None if best is None else best.channel

    def answered(self, channel: Channel) -> None:
        """An answer of its came in time."""
        member = self._by_channel.get(id(channel))
        if member is not None and (member.timeouts or member.suspensions):
            member.timeouts = member.suspensions = 0
            member.suspended_until = 0.0

    def timed_out(self, channel: Channel, now: float) -> None:
        """It kept silent for a flight's whole time."""
        member = self._by_channel.get(id(channel))
        if member is None:
            return
        member.timeouts += 1
        if member.timeouts >= TIMEOUTS_MAX:
            member.timeouts = TIMEOUTS_MAX - 1  # back on probation: the next one suspends it again, for longer
            member.suspended_until = now + min(SUSPEND_S * 2.0 ** min(member.suspensions, 8), SUSPEND_MAX_S)
            member.suspensions += 1

    def _fit(self, member: Member, now: float, avoid: Channel | None) -> bool:
        return (
            not member.draining
            and member.channel.connected
            and member.channel.in_flight < self.in_flight_max
            and now >= member.suspended_until
            and member.channel is not avoid
        )

    def _better(self, one: Member, two: Member, now: float, avoid: Channel | None) -> Member | None:
        if not self._fit(one, now, avoid):
            return two if self._fit(two, now, avoid) else None
        if one is two or not self._fit(two, now, avoid):
            return one
        return one if one.channel.in_flight <= two.channel.in_flight else two
