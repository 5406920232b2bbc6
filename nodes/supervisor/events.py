"""What happens to the supervisor (events, past tense) and what its core wants done (commands, verbs)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Job = Literal["ready", "bootstrap"]
"""One-shot commands of the plan: does Ray answer; make the controller."""


# -- events ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The supervisor begins; what an earlier one left running has been found."""

    ingress: bool
    """A living ingress was adopted; it has number 0."""
    ray: bool
    """A living ``ray start`` was adopted; it has number 0."""


@dataclass(frozen=True, slots=True)
class IngressReady:
    """An ingress said that it answers."""

    number: int


@dataclass(frozen=True, slots=True)
class IngressExited:
    """An ingress process is gone, or could not be started."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class RayExited:
    """``ray start --block`` is gone, or could not be started."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class RayCleared:
    """No process of that Ray is left."""

    number: int


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A one-shot command came to its end."""

    number: int
    """Of the Ray that it was for."""
    job: Job
    ok: bool


@dataclass(frozen=True, slots=True)
class TakeoverAsked:
    """An operator wants a new ingress in place of the one that runs."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A signal or a command ends the node."""

    immediate: bool = False


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The time that ``wake_at`` named has come."""


Event = (
    Started | IngressReady | IngressExited | RayExited | RayCleared | JobEnded | TakeoverAsked | StopAsked | TimePassed
)


# -- commands --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartIngress:
    """Start an ingress with the sockets; answer with ``IngressReady`` or ``IngressExited``."""

    number: int
    fresh: bool = True
    """From what is on disk now; else the one in reserve will do."""


@dataclass(frozen=True, slots=True)
class ReleaseIngress:
    """Have it stop reading, finish what it has read, and leave; answer with ``IngressExited``."""

    number: int


@dataclass(frozen=True, slots=True)
class KillIngress:
    """End it at once (SIGKILL); answer with ``IngressExited``."""

    number: int


@dataclass(frozen=True, slots=True)
class StartRay:
    """Start Ray, after leftovers of an earlier one are gone; answer with ``RayExited`` when it ends."""

    number: int


@dataclass(frozen=True, slots=True)
class ClearRay:
    """End every process of that Ray and of what it started; answer with ``RayCleared``."""

    number: int
    immediate: bool = False


@dataclass(frozen=True, slots=True)
class RunJob:
    """Run a one-shot command; answer with ``JobEnded``."""

    number: int
    job: Job


@dataclass(frozen=True, slots=True)
class ReportTakeover:
    """Tell whoever asked for a take-over how it ended."""

    number: int
    """Of the ingress that serves now."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ReportReady:
    """The node answers DNS: said once."""


@dataclass(frozen=True, slots=True)
class ReportTrouble:
    """The node does not come up: its ingress fails again and again and has never answered. Said once; it goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to wait for: the supervisor may leave."""


Command = (
    StartIngress
    | ReleaseIngress
    | KillIngress
    | StartRay
    | ClearRay
    | RunJob
    | ReportTakeover
    | ReportReady
    | ReportTrouble
    | Finish
)
