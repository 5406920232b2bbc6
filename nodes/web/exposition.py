"""``list[Family]`` as Prometheus text, through prometheus_client's custom collector.

Families come from other processes and perhaps other versions: whatever Prometheus could not read is left out and
counted, one bad series never costs the others, and every label value is escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from raydns.nodes.metrics import Family, HistogramValue, Sample

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
SERIES_MAX: Final = 20_000
VALUE_MAX: Final = 200  # octets of a label's value; ours never hold a name or a client

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


def render(families: Iterable[Family]) -> bytes:
    """The text format, version 0.0.4, of all families."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    """One scrape's families as prometheus_client wants them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """All metrics that can be said, and how many series could not."""
        left_out = 0
        room = SERIES_MAX
        seen: set[str] = set()
        for family in self._families:
            name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
            if not _NAME.match(name) or name in seen or family.kind not in _KINDS:
                left_out += len(family.samples)
                continue
            seen.add(name)
            kept: list[Sample] = []
            for sample in family.samples:
                if room > 0 and _sound(family, sample):
                    kept.append(sample)
                    room -= 1
                else:
                    left_out += 1
            yield _metric(family, name, kept)
        yield GaugeMetricFamily("raydns_web_series_left_out", "Series that could not be shown.", value=left_out)


_KINDS: Final = frozenset({"counter", "gauge", "histogram"})


def _metric(family: Family, name: str, samples: list[Sample]) -> Metric:
    # Series of one family may carry different labels (an actor's name, or none): each is the empty text elsewhere.
    labels = sorted({label for sample in samples for label in sample.labels})
    text = family.help or name
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, text, labels=labels)
        for sample in samples:
            assert sample.histogram is not None
            histogram.add_metric(_values(sample, labels), _buckets(sample.histogram), sample.histogram.total)
        return histogram
    metric = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
    for sample in samples:
        metric.add_metric(_values(sample, labels), sample.value)
    return metric


def _values(sample: Sample, labels: list[str]) -> list[str]:
    return [sample.labels.get(label, "")[:VALUE_MAX].encode("utf-8", "backslashreplace").decode() for label in labels]


def _buckets(value: HistogramValue) -> list[tuple[str, float]]:
    bounds = [repr(float(bound)) for bound in value.bounds]
    return list(zip([*bounds, "+Inf"], (float(count) for count in accumulate(value.counts)), strict=True))


def _sound(family: Family, sample: Sample) -> bool:
    """Whether a series can be said: good label names, and buckets that fit their bounds."""
    if not all(_NAME.match(label) and not label.startswith("__") and label != "le" for label in sample.labels):
        return False
    if family.kind != "histogram":
        return True
    value = sample.histogram
    return (
        value is not None
        and len(value.counts) == len(value.bounds) + 1
        and list(value.bounds) == sorted(value.bounds)
        and not any(math.isnan(bound) or math.isinf(bound) for bound in value.bounds)
    )
