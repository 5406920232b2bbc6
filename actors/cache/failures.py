"""Failures that are remembered (RFC 9520): whoever asks again within seconds must not start another flight."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

# A record is about 400 octets: at most 7 MB a shard, whatever somebody makes fail.
RECORDS_MAX: Final = 16_384


class Failure:
    """How often in a row a question failed, and until when that is the answer."""

    __slots__ = ("began", "count", "ede", "ede_text", "rcode", "until")

    def __init__(self) -> None:
        self.count = 0
        self.until = 0.0
        self.rcode = 2
        self.ede = -1
        self.ede_text = ""
        self.began = 0


class Failures:
    """By key; the least recently failed go first."""

    def __init__(self, records_max: int = RECORDS_MAX) -> None:
        self._records: OrderedDict[bytes, Failure] = OrderedDict()
        self._records_max = records_max

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: bytes, now: float) -> Failure | None:
        """The failure that is still the answer."""
        record = self._records.get(key)
        return record if record is not None and now < record.until else None

    def add(self, key: bytes, now: float, first_s: float, longest_s: float) -> Failure:
        """One more failure in a row; each doubles the time, up to a bound (RFC 9520 section 3.2).

        A record whose time has been over for as long as the longest time begins anew: what failed an hour ago and
        was not asked for since is no series.
        """
        record = self._records.pop(key, None)
        if record is None or now > record.until + longest_s:
            record = Failure()
        record.count += 1
        record.until = now + min(first_s * 2.0 ** min(record.count - 1, 16), longest_s)
        self._records[key] = record
        while len(self._records) > self._records_max:
            self._records.popitem(last=False)
        return record

    def forget(self, key: bytes) -> None:
        """The question was answered, or its name flushed."""
        self._records.pop(key, None)

    def clear(self) -> None:
        """Everything is gone."""
        self._records.clear()
