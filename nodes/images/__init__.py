"""Zone images as a machine maps them: reading, checking, and answering from them.

Owns the reader of format version 1 (``docs/image-format.md``) and the one implementation of authoritative
answering, used by the reference engine and by the zone shard alike. May call ``raydns.schemas``. Never writes a
mapped file, never parses a master file, never looks at a client.

What others use::

    open_image(path) -> Image                     raises ImageError: damaged, truncated, foreign, too new
        .zones: list[ImageZone]   .close()
    ZoneTable(entries, images, previous=None)     all apexes of all views; immutable once made
        .refusals: list[Refused]                  (apex, sha256, problem): entries whose image cannot be used
        .find(key, qtype=0, view=0)               the entry with the longest apex at or above ``key``, also without
                                                  a usable image; for DS at an apex the parent's where that is served
        .answer(query, view=0) -> Answer | None   None: no apex of ours, or an apex without a usable image
        .missing: int, .entries
    Answer
        .message            ID 0, flags QR|AA|TC as due and rcode set, the question as asked, sections, no OPT
        .layout             ``wire.LAYOUT`` entries of all records: for cutting at RRset boundaries
        .rcode              0..15
        .incomplete_cname   target (as written) of a last CNAME that leads out of the zones held here, else None
        .required           how many leading records a reply must hold, else it carries TC: answer, authority, and
                            in a referral the in-domain glue (RFC 9471); records behind may be dropped in silence

The caller puts in ID, RD, CD, RA and OPT and fits the message to its client (``layout`` and ``required``).
Class ANY is answered as IN without AA; other classes REFUSED. AXFR and IXFR are REFUSED here: transfers go to the
zone shard.
"""

from __future__ import annotations

from .answer import Answer
from .reader import Image, ImageZone, open_image
from .table import Refused, ZoneTable

__all__ = ["Answer", "Image", "ImageZone", "Refused", "ZoneTable", "open_image"]
