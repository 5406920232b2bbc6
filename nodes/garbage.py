"""Garbage collection out of the hot path's way, the same for the ingress and every data actor."""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 50)
"""The hot paths make few cycles; the default (700) walks through every cached answer again and again."""


def settle() -> None:
    """Call once at the end of a start: what is there then lives for ever, and is never visited again.

    In an actor that is Ray and what it imports: 200,000 objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
