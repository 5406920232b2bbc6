"""Metrics of an LLM actor (llm.md 2.5); no prompt, no client and no key ever stands in a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raydns.nodes.metrics import Family, Metrics, Sample

from .completion import Completion
from .messages import AskResult, Kind

if TYPE_CHECKING:
    from .core import LLMCore

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 25.0, 60.0)
_REQUESTS: Final = "raydns_llm_upstream_requests_total"


class Measures:
    """Counters of the core, and gauges that read it."""

    def __init__(self, core: LLMCore) -> None:
        self._metrics = Metrics()
        counter, histogram, gauge = self._metrics.counter, self._metrics.histogram, self._metrics.gauge
        self._queries = counter("raydns_llm_queries_total", "Prompts that were asked, by what came of them.", "result")
        self._requests = counter(_REQUESTS, "Model calls that ended, by provider and outcome.", "series")
        self._seconds = histogram(
            "raydns_llm_upstream_seconds", "How long model calls took.", "provider", bounds=_SECONDS
        )
        self._first = histogram(
            "raydns_llm_first_token_seconds", "Time from a call to its first text.", bounds=_SECONDS
        )
        self._tokens = counter("raydns_llm_tokens_total", "Tokens as the providers count them.", "kind")
        self._truncated = counter("raydns_llm_truncated_total", "Answers that ended at a limit of length.")
        self._verified = counter("raydns_llm_verify_total", "Queries sent to TCP to prove their source.")
        gauge("raydns_llm_in_flight", "Model calls that are out.", lambda: core.in_flight)
        gauge("raydns_llm_waiters", "Queries that wait for model calls.", lambda: core.waiters)
        gauge("raydns_llm_cache_entries", "Answers that are kept.", lambda: len(core.answers))
        gauge("raydns_llm_cache_bytes", "Octets that kept answers take.", lambda: core.answers.size)
        gauge("raydns_llm_quota_remaining", "Model calls that are left in a window.", core.quota_left, "window")
        gauge("raydns_llm_breaker_open", "1 where a provider is not called for now.", core.closed_gates, "provider")

    def asked(self, result: AskResult) -> None:
        """A query got its result."""
        if result.kind is Kind.VERIFY:
            self._verified.inc()
        elif result.kind is Kind.ANSWER:
            self._queries.inc(result.source)
        else:
            self._queries.inc(result.kind.value)

    def called(self, provider: str, outcome: str, seconds: float) -> None:
        """A model call ended."""
        self._requests.inc(f"{provider}/{outcome}")
        self._seconds.observe(seconds, provider)

    def completed(self, completion: Completion) -> None:
        """A model call ended well."""
        self._first.observe(completion.first_token_s)
        self._tokens.inc("prompt", completion.prompt_tokens)
        self._tokens.inc("completion", completion.completion_tokens)
        if completion.truncated or completion.finish_reason == "length":
            self._truncated.inc()

    @property
    def calls(self) -> int:
        """Model calls that ended."""
        return self._requests.total

    @property
    def queries(self) -> int:
        """Prompts that were asked."""
        return self._queries.total

    def gauge(self, name: str, text: str, read: object) -> None:
        """A gauge of the shell."""
        assert callable(read)
        self._metrics.gauge(name, text, read)

    def families(self) -> list[Family]:
        """All of it; our counters know one label, so two stand in one and are parted here."""
        families = self._metrics.families()
        for family in families:
            if family.name == _REQUESTS:
                family.samples = [_parted(sample) for sample in family.samples]
            elif family.name.endswith("_total"):
                family.kind = "counter"  # one that the shell reads where it is counted
        return families


def _parted(sample: Sample) -> Sample:
    provider, _, outcome = sample.labels.get("series", "").partition("/")
    return Sample({"provider": provider, "outcome": outcome}, sample.value)
