"""The one budget of a client query (design: rule 3): it only ever shrinks, and nobody makes a second one.

It comes out of the item's fields and goes back into them when the query travels on, so that restarts, referrals
and other actors spend from the same purse.
"""

from __future__ import annotations

from raydns.schemas.batch import QueryItem
from raydns.schemas.errors import RaydnsError


class BudgetExhausted(RaydnsError):
    """A client query used up what one client query may cost; a failure of our own making, never cached."""

    code = "query.budget"

    def __init__(
        self, message: str, *, where: str = "", hint: str = "raise query.budget if such names are wanted"
    ) -> None:
        super().__init__(message, where=where, hint=hint)


class DeadlinePassed(BudgetExhausted):
    """The time that the asker gave has gone; nothing more is started."""

    code = "query.deadline"


class Budget:
    """What is left: upstream queries, octets received, CNAME steps, wall clock."""

    __slots__ = ("cname_left", "ends_at", "octets_left", "queries_left")

    def __init__(self, queries_left: int, octets_left: int, cname_left: int, ends_at: float) -> None:
        self.queries_left = queries_left  # never below 0
        self.octets_left = octets_left  # may end below 0: octets are counted after they came
        self.cname_left = cname_left  # never below 0
        self.ends_at = ends_at  # monotonic seconds

    @classmethod
    def from_item(cls, item: QueryItem, now: float) -> Budget:
        """The budget that travelled with the query; ``now`` is monotonic."""
        return cls(item.queries_left, item.octets_left, item.cname_left, now + item.deadline_ms / 1000.0)

    def write_to(self, item: QueryItem, now: float) -> None:
        """Puts what is left into an item that travels on."""
        item.queries_left = self.queries_left
        item.octets_left = max(self.octets_left, 0)
        item.cname_left = self.cname_left
        item.deadline_ms = max(int((self.ends_at - now) * 1000.0), 0)

    def remaining_s(self, now: float) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(self.ends_at - now, 0.0)

    def check(self, now: float) -> None:
        """Raises ``DeadlinePassed`` if there is no time left, ``BudgetExhausted`` if there are no octets left."""
        if now >= self.ends_at:
            raise DeadlinePassed("the query's deadline has passed", hint="")
        if self.octets_left <= 0:
            raise BudgetExhausted("the query received more octets than one client query may")

    def spend_query(self, now: float) -> None:
        """Pays for one exchange with an upstream before it starts."""
        self.check(now)
        if self.queries_left <= 0:
            raise BudgetExhausted("the query needed more upstream exchanges than one client query may")
        self.queries_left -= 1

    def spend_octets(self, count: int) -> None:
        """Pays for octets that came; the next ``check`` raises if they were too many."""
        self.octets_left -= count

    def spend_cname(self, count: int = 1) -> None:
        """Pays for steps along CNAME and DNAME."""
        if count > self.cname_left:
            self.cname_left = 0
            raise BudgetExhausted("the query's chain of CNAMEs is longer than one client query may follow")
        self.cname_left -= count
