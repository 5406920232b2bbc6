"""What a configuration says about names: LLM zones, forward rules, and the right that a name asks of a client."""

from __future__ import annotations

from typing import Final

from raydns.schemas import dns, names
from raydns.schemas.batch import Right
from raydns.schemas.config import Config

RESOLVE: Final = Right.CACHE | Right.RECURSE | Right.FORWARD | Right.CATCH_ALL
"""Who has none of these gets only what is served here."""
ASK_ABOVE: Final = Right.RECURSE | Right.FORWARD | Right.CATCH_ALL
"""Who has none of these never causes a query to somebody else; RA is off."""


class NamePolicy:
    """Look-ups by name that cost little where little is configured."""

    def __init__(self, config: Config) -> None:
        llm = config.llm
        self.llm_zones = tuple(names.from_text(zone) for zone in llm.zones) if llm.enabled else ()
        self.forward_suffixes = frozenset(names.from_text(rule.suffix) for rule in config.forward.rules)
        self._catch_all = llm.enabled and llm.catch_all == "stub"

    def llm_zone(self, key: bytes) -> bytes | None:
        """The longest LLM zone at or above a name."""
        best: bytes | None = None
        for zone in self.llm_zones:
            longer = best is None or len(zone) > len(best)
            if longer and key.endswith(zone) and names.is_subdomain(key, zone):
                best = zone
        return best

    def needed(self, key: bytes, qtype: int) -> int:
        """The right without which a name may not be resolved for a client: as the pipeline will treat it."""
        if self.forward_suffixes and any(name in self.forward_suffixes for name in names.ancestors(key)):
            return Right.FORWARD
        if self._catch_all and qtype == dns.Type.TXT:
            return Right.CATCH_ALL
        return Right.RECURSE
