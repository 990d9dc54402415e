"""What a server counts, and its page for Prometheus. Nothing here knows about sessions or HTTP.

Counters are plain Python numbers that only the event loop's thread touches: counting a step costs a quarter of a
microsecond, where a locked metric of ``prometheus_client`` costs two, and that package is not even imported before
somebody asks for the page. Labels come from bounded sets only: environments that are served, operations, problem
types.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from turnwise_envs import __version__

if TYPE_CHECKING:
    from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Upper bounds in seconds: from a step of a toy to the default step limit.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Latency:
    """A histogram of seconds: ``counts[i]`` fell into bucket ``i`` of :data:`BUCKETS`, the last one has the rest."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class Metrics:
    """All numbers of one server. Count into the public dictionaries; :meth:`page` renders them."""

    def __init__(self) -> None:
        #: By operation and HTTP status.
        self.operations: defaultdict[tuple[str, int], int] = defaultdict(int)
        #: From admission to the answer, by operation.
        self.operation_seconds: defaultdict[str, Latency] = defaultdict(Latency)
        #: One turn, from when it is taken up until it is durable, by environment.
        self.step_seconds: defaultdict[str, Latency] = defaultdict(Latency)
        #: By problem type.
        self.rejections: defaultdict[str, int] = defaultdict(int)
        #: Sessions rebuilt, by environment.
        self.replays: defaultdict[str, int] = defaultdict(int)
        #: Children, by environment.
        self.forks: defaultdict[str, int] = defaultdict(int)
        #: By reason.
        self.worker_restarts: defaultdict[str, int] = defaultdict(int)
        #: Sessions that left memory and can come back, by environment.
        self.rests: defaultdict[str, int] = defaultdict(int)
        self._sessions: Callable[[], Mapping[str, int]] = dict
        self._journal: Callable[[], tuple[int, Latency]] = lambda: (0, Latency())
        self._in_flight: Callable[[], int] = int
        self._connections: Callable[[], int] = int

    def watch_sessions(self, count: Callable[[], Mapping[str, int]]) -> None:
        """``count()`` says how many sessions there are in each state; asked when the page is."""
        self._sessions = count

    def watch_journal(self, figures: Callable[[], tuple[int, Latency]]) -> None:
        """``figures()`` are the number of entries not yet durable, and the seconds it took the others."""
        self._journal = figures

    def watch_in_flight(self, count: Callable[[], int]) -> None:
        """``count()`` is the number of operations that were let in and have no answer yet."""
        self._in_flight = count

    def watch_connections(self, count: Callable[[], int]) -> None:
        """``count()`` is the number of open connections."""
        self._connections = count

    def page(self) -> bytes:
        """The text exposition format, :data:`CONTENT_TYPE`, with CPU, memory and descriptors of the process."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)  # whatever has collect() is a collector
        ProcessCollector(registry=registry)
        return bytes(generate_latest(registry))

    def collect(self) -> Iterator[Metric]:
        """What ``prometheus_client`` asks of a collector."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        yield InfoMetricFamily("turnwise", "This server", {"version": __version__})
        sessions = GaugeMetricFamily("turnwise_sessions", "Sessions in memory, by state", labels=["state"])
        for state, number in self._sessions().items():
            sessions.add_metric([state], number)
        yield sessions
        steps = CounterMetricFamily("turnwise_steps", "Turns taken", labels=["env"])
        for env, latency in self.step_seconds.items():
            steps.add_metric([env], sum(latency.counts))
        yield steps
        yield _histogram("turnwise_step_seconds", "One turn, until it is durable", "env", self.step_seconds)
        operations = CounterMetricFamily("turnwise_operations", "Operations answered", labels=["operation", "status"])
        for (operation, status), number in self.operations.items():
            operations.add_metric([operation, str(status)], number)
        yield operations
        yield _histogram(
            "turnwise_operation_seconds", "One operation, answer included", "operation", self.operation_seconds
        )
        backlog, lag = self._journal()
        yield _histogram("turnwise_journal_lag_seconds", "A journal entry, until it is durable", None, {"": lag})
        yield GaugeMetricFamily("turnwise_journal_backlog", "Entries not yet durable", backlog)
        yield GaugeMetricFamily("turnwise_operations_in_flight", "Operations without an answer yet", self._in_flight())
        yield GaugeMetricFamily("turnwise_connections", "Open connections", self._connections())
        yield _counter("turnwise_replays", "Sessions rebuilt by snapshot or replay", "env", self.replays)
        yield _counter("turnwise_rests", "Sessions that left memory", "env", self.rests)
        yield _counter("turnwise_forks", "Sessions branched off", "env", self.forks)
        yield _counter("turnwise_worker_restarts", "Worker processes replaced", "reason", self.worker_restarts)
        yield _counter("turnwise_rejections", "Requests refused, by problem type", "problem", self.rejections)


def _counter(name: str, text: str, label: str, numbers: Mapping[str, int]) -> CounterMetricFamily:
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in numbers.items():
        family.add_metric([value], number)
    return family


def _histogram(name: str, text: str, label: str | None, latencies: Mapping[str, Latency]) -> HistogramMetricFamily:
    from prometheus_client.metrics_core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=[] if label is None else [label])
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    for value, latency in latencies.items():
        cumulative = list(zip(bounds, accumulate(map(float, latency.counts)), strict=True))
        family.add_metric([] if label is None else [value], cumulative, latency.total)
    return family
