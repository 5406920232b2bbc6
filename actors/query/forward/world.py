"""Time, chance and the event loop, as they are handed to everything that forwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from raydns.nodes.timers import Clockwork

from .chance import Chance


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """It will not be made."""


@dataclass(frozen=True, slots=True)
class World:
    """What is not ours to decide."""

    loop: asyncio.AbstractEventLoop
    clock: Callable[[], float]
    """Monotonic seconds."""
    unix_time: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Timer]
    random_below: Callable[[int], int]
    """Uniform and secure: IDs and ports."""
    random_octets: Callable[[int], bytes]
    """Secure: the case of names."""
    random: Callable[[], float]
    """Uniform in [0, 1): jitter and exploration."""


def real_world() -> World:
    """The running loop, the machine's clocks and the kernel's randomness."""
    loop = asyncio.get_running_loop()
    chance = Chance()
    timers = Clockwork(loop, time.monotonic)
    return World(loop, time.monotonic, time.time, timers.call_later, chance.below, chance.octets, random.random)
