"""How much room items take in a batch, so that a batch is split before it exceeds its limits."""

from __future__ import annotations

from typing import Final

from raydns.schemas.batch import ANSWER_FIXED, BATCH_SIZE_MAX, QUERY_FIXED, AnswerItem, QueryItem

BATCH_ROOM: Final = BATCH_SIZE_MAX - 6  # its header

_QUERY_FIXED: Final = QUERY_FIXED.size
_ANSWER_FIXED: Final = ANSWER_FIXED.size


def query_size(item: QueryItem) -> int:
    """Octets of a query in a batch."""
    return _QUERY_FIXED + len(item.tsig_key) + len(item.identity) + len(item.message)


def answer_size(item: AnswerItem) -> int:
    """Octets of an answer in a batch, at most."""
    fixed = _ANSWER_FIXED + (255 if item.ede_text else 0)
    return fixed + len(item.layout) + len(item.facts) + len(item.rooms) + len(item.message)
