"""The consistent-hash ring: which cache shard owns which names, made by the controller, read by everybody.

Owns the making of ``schemas.cluster.RingTable`` and the comparison of two tables. May import schemas only;
never decides at look-up: whatever bounds the load does so when the table is made.
"""

from __future__ import annotations

from .compare import moved_share, shares
from .table import Shard, build

__all__ = ["Shard", "build", "moved_share", "shares"]
