"""Token buckets, prefixes, the day's count and its file, all by a clock that the test turns."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.actors.llm.limits import (
    ClientBuckets,
    DayCount,
    GlobalLimit,
    Share,
    TokenBucket,
)
from raydns.actors.llm.messages import Kind, client_prefix
from raydns.actors.llm.quota import QuotaFile, QuotaMemory
from raydns.schemas.config.llm import LimitsConfig, LLMConfig

from .harness import MIDNIGHT, Scripted, Time, ask, make_core, wide_limits


def test_bucket_refills() -> None:
    """A bucket gives its burst, then its rate."""
    bucket = TokenBucket(0.1, 3.0, 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s(0.0) == pytest.approx(10.0)
    assert not bucket.take(9.9)
    assert bucket.take(10.0)
    assert not bucket.take(10.0)
    assert bucket.level(1e9) == 3.0


@given(
    st.floats(0.01, 100),
    st.integers(1, 50),
    st.lists(st.floats(0, 30, allow_nan=False), max_size=60),
)
def test_bucket_never_gives_more(rate: float, burst: int, steps: list[float]) -> None:
    """In any time a bucket gives at most its burst and rate × time."""
    bucket, now, given_out = TokenBucket(rate, float(burst), 0.0), 0.0, 0
    for step in steps:
        now += step
        given_out += bucket.take(now)
        assert given_out <= burst + rate * now + 1e-6


def test_bucket_survives_a_clock_that_goes_back() -> None:
    """Time that goes back gives nothing and takes nothing."""
    bucket = TokenBucket(1.0, 2.0, 100.0)
    assert bucket.take(100.0)
    assert bucket.take(50.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)


def test_resize_gives_nothing_away() -> None:
    """A reload keeps what was spent."""
    bucket = TokenBucket(0.1, 5.0, 0.0)
    for _ in range(4):
        bucket.take(0.0)
    bucket.resize(0.1, 5.0, 0.0)
    assert bucket.level(0.0) == pytest.approx(1.0)
    bucket.resize(0.1, 10.0, 0.0)
    assert bucket.level(0.0) == pytest.approx(6.0)
    bucket.resize(0.1, 2.0, 0.0)
    assert bucket.level(0.0) == 0.0


def test_prefixes() -> None:
    """IPv4 counts by address, IPv6 by /56."""

    def octets(text: str) -> bytes:
        address = ipaddress.ip_address(text)
        return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed

    assert client_prefix(octets("192.0.2.1")) != client_prefix(octets("192.0.2.2"))
    assert client_prefix(octets("2001:db8:0:1200::1")) == client_prefix(octets("2001:db8:0:12ff:ffff::9"))
    assert client_prefix(octets("2001:db8:0:1200::1")) != client_prefix(octets("2001:db8:0:1300::1"))
    assert len(client_prefix(b"")) == 16


def test_client_buckets_are_bounded() -> None:
    """A flood of sources keeps no more buckets than the bound, the newest."""
    buckets = ClientBuckets(0.1, 1.0, clients_max=10)
    for number in range(1000):
        assert buckets.take(number.to_bytes(16, "big"), 0.0)
    assert len(buckets) == 10
    assert not buckets.take((999).to_bytes(16, "big"), 0.0)


def test_day_rolls_over_at_utc_midnight() -> None:
    """The count starts anew with the UTC day, and not before."""
    day = DayCount(QuotaMemory())
    limit = GlobalLimit(1000, 2, day, 0.0)
    before = MIDNIGHT - 1.0
    assert [limit.take(0.0, before) for _ in range(3)] == [True, True, False]
    assert limit.wait_s(0.0, before) == ("day", pytest.approx(1.0))
    assert limit.take(1.0, MIDNIGHT)
    assert limit.day_left(MIDNIGHT) == 1


def test_clock_back_gives_no_calls_back() -> None:
    """Turning the clock back to yesterday does not refill the day; a clock that was far ahead does not block it."""
    store = QuotaMemory()
    day = DayCount(store)
    day.add(MIDNIGHT + 10)
    assert day.calls(MIDNIGHT - 10) == 1
    assert day.calls(MIDNIGHT - 40 * 86_400.0) == 1
    assert day.calls(MIDNIGHT - 39 * 86_400.0) == 0


def test_refused_minute_costs_no_day() -> None:
    """A call that the minute refuses is not counted for the day, nor the other way round."""
    day = DayCount(QuotaMemory())
    limit = GlobalLimit(1, 10, day, 0.0)
    assert limit.take(0.0, MIDNIGHT)
    assert not limit.take(0.0, MIDNIGHT)
    assert day.calls(MIDNIGHT) == 1
    full = GlobalLimit(5, 1, DayCount(QuotaMemory()), 0.0)
    assert full.take(0.0, MIDNIGHT)
    assert not full.take(0.0, MIDNIGHT)
    assert full.minute_left(0.0) == 4


def test_quota_is_kept_over_a_restart(tmp_path: Path) -> None:
    """A new actor goes on counting where the killed one was."""
    path = tmp_path / "llm" / "0" / "quota.json"
    limit = GlobalLimit(100, 3, DayCount(QuotaFile(path)), 0.0)
    assert limit.take(0.0, MIDNIGHT)
    assert limit.take(0.0, MIDNIGHT)
    again = GlobalLimit(100, 3, DayCount(QuotaFile(path)), 0.0)
    assert again.take(0.0, MIDNIGHT)
    assert not again.take(0.0, MIDNIGHT)
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"{", b'{"day": "x", "calls": 1}', b"[]", b'{"day": 1}', b"\xff\xfe"])
def test_damaged_quota_file(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged file is said in the log and counts as nothing."""
    path = tmp_path / "quota.json"
    path.write_bytes(content)
    assert QuotaFile(path).load() == (0, 0)
    assert "llm.quota_unreadable" in caplog.text


def test_unwritable_quota_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that cannot take the count stops no call."""
    (tmp_path / "file").write_text("")
    QuotaFile(tmp_path / "file" / "quota.json").save(1, 1)
    assert "llm.quota_unwritable" in caplog.text


@given(st.integers(0, 500), st.integers(1, 64))
def test_shares_sum_to_the_limit(limit: int, actors: int) -> None:
    """Several actors' parts make exactly the whole."""
    assert sum(Share(index, actors).of(limit) for index in range(actors)) == limit


async def test_client_limit_is_told_and_ends() -> None:
    """The fourth call of a client at once is refused with the time to wait; kept answers still come, others call."""
    provider, time = Scripted(), Time()
    config = LLMConfig(limits=wide_limits(client_calls_per_minute=6.0, client_burst=3))
    core = make_core(provider, time, config)
    for number in range(3):
        assert (await core.ask(ask(f"p{number}"))).kind is Kind.ANSWER
    refused = await core.ask(ask("p3"))
    assert (refused.kind, refused.text, refused.ttl) == (Kind.LIMITED, "error: rate limited, retry in 10 s", 5)
    assert (await core.ask(ask("p0"))).kind is Kind.ANSWER
    assert (await core.ask(ask("p3", who=2))).kind is Kind.ANSWER
    assert provider.calls == 4
    time.forward(7.0)
    assert (await core.ask(ask("p4"))).text == "error: rate limited, retry in 3 s"
    time.forward(3.0)
    assert (await core.ask(ask("p4"))).kind is Kind.ANSWER


async def test_client_queries_are_limited() -> None:
    """Hits count against a client's queries, so that even they have a bound."""
    config = LLMConfig(limits=wide_limits(client_queries_per_second=1.0, client_queries_burst=5))
    core = make_core(Scripted(), Time(), config)
    kinds = [(await core.ask(ask())).kind for _ in range(7)]
    assert kinds == [Kind.ANSWER] * 5 + [Kind.LIMITED] * 2


async def test_daily_limit_is_told_and_hits_go_on() -> None:
    """When the day is used up new prompts are refused, kept answers are not, and midnight helps."""
    provider, time = Scripted(), Time()
    core = make_core(provider, time, LLMConfig(limits=wide_limits(global_per_day=2)))
    await core.ask(ask("one"))
    await core.ask(ask("two", who=2))
    refused = await core.ask(ask("three", who=3))
    assert (refused.kind, refused.text, refused.ttl) == (Kind.QUOTA, "error: daily limit reached", 5)
    assert (await core.ask(ask("one", who=4))).source == "hit"
    assert core.quota_left()["day"] == 0.0
    time.forward(43_200.0)
    assert (await core.ask(ask("three", who=3))).kind is Kind.ANSWER
    assert provider.calls == 3


async def test_flood_of_spoofed_sources() -> None:
    """20,000 prompts from unproven sources of their own never make more calls than half a minute's quota allows."""
    provider, time = Scripted(), Time()
    core = make_core(provider, time, LLMConfig(limits=wide_limits(global_per_minute=18, global_per_day=45)))
    kinds: dict[str, int] = {}
    for number in range(20_000):
        result = await core.ask(ask(f"flood {number}", who=number, proven=False))
        kinds[result.kind] = kinds.get(result.kind, 0) + 1
    assert provider.calls <= 10
    assert kinds[Kind.VERIFY] >= 19_990
    honest = await core.ask(ask("an honest question", who=99_999, proven=True))
    assert honest.kind is Kind.ANSWER


async def test_flood_from_proven_sources_meets_the_cap() -> None:
    """Not even proven sources without number get more calls than the minute and the day allow."""
    provider, time = Scripted(), Time()
    core = make_core(provider, time, LLMConfig(limits=wide_limits(global_per_minute=18, global_per_day=45)))
    for number in range(3_000):
        await core.ask(ask(f"flood {number}", who=number))
        time.forward(0.2)
    assert provider.calls == 45
    assert time.now == pytest.approx(1_600.0)


async def test_spoofing_a_client_leaves_it_a_call() -> None:
    """Two unproven calls in a client's name, the third must come by TCP: the real client still has a call."""
    provider = Scripted()
    limits = wide_limits(client_calls_per_minute=6.0, client_burst=3)
    core = make_core(provider, Time(), LLMConfig(limits=limits))
    kinds = [(await core.ask(ask(f"p{n}", proven=False))).kind for n in range(5)]
    assert kinds == [Kind.ANSWER] * 2 + [Kind.VERIFY] * 3
    assert (await core.ask(ask("mine", proven=True))).kind is Kind.ANSWER


@pytest.mark.parametrize(("mode", "calls"), [("always", 0), ("off", 5), ("auto", 5)])
async def test_verify_source_modes(mode: str, calls: int) -> None:
    """``always`` asks each unproven source to prove itself, ``off`` none."""
    provider = Scripted()
    config = LLMConfig.model_validate({"verify_source": mode, "limits": wide_limits()})
    core = make_core(provider, Time(), config)
    for number in range(5):
        await core.ask(ask(f"p{number}", who=number, proven=False))
    assert provider.calls == calls


async def test_limits_change_while_running() -> None:
    """A reload changes limits at once and keeps what was spent."""
    provider, time = Scripted(), Time()
    core = make_core(provider, time, LLMConfig(limits=wide_limits(global_per_day=2)))
    await core.ask(ask("one"))
    await core.ask(ask("two"))
    core.configure(LLMConfig(limits=wide_limits(global_per_day=3)), Share())
    assert (await core.ask(ask("three"))).kind is Kind.ANSWER
    assert (await core.ask(ask("four"))).kind is Kind.QUOTA


def test_configured_defaults_are_those_of_the_specification() -> None:
    """llm.md 2.3: 6 calls a minute with a burst of 3, 18 a minute and 45 a day in all."""
    limits = LimitsConfig()
    assert (limits.client_calls_per_minute, limits.client_burst) == (6.0, 3)
    assert (limits.global_per_minute, limits.global_per_day) == (18, 45)
