"""The health monitor's counting."""

from __future__ import annotations

from raydns.actors.health.core import Watch


def test_failures_are_counted_in_a_row_and_one_good_answer_clears_them() -> None:
    """Proves that only consecutive failures count, and that their reason is told."""
    watch = Watch()
    watch.keep(["query:0.g1"])
    for _ in range(3):
        watch.failed("query:0.g1", "no answer within 2 s")
    seen = watch.report()[0]
    assert (seen.healthy, seen.failures, seen.reason) == (False, 3, "no answer within 2 s")
    watch.succeeded("query:0.g1", 5.0)
    assert watch.report()[0].healthy
    watch.failed("query:0.g1", "again")
    assert watch.report()[0].failures == 1


def test_a_target_is_not_probed_while_a_probe_is_under_way() -> None:
    """Proves that a slow target does not pile up probes."""
    watch = Watch()
    watch.keep(["a", "b"])
    assert sorted(watch.due()) == ["a", "b"]
    assert watch.due() == []
    watch.succeeded("a", 1.0)
    assert watch.due() == ["a"]


def test_what_was_never_probed_is_neither_well_nor_ill() -> None:
    """Proves that a monitor that just started accuses nobody, and that gone targets are forgotten."""
    watch = Watch()
    watch.keep(["a"])
    assert watch.report() == []
    watch.failed("a", "x")
    watch.keep(["b"])
    watch.failed("a", "x")
    assert watch.report() == []
