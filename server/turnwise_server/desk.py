"""The desk that every operation passes once: let in, timed, named in logs and traces, and counted when it leaves.

A request comes here from the gate; a frame of a socket and an entry of a batch from whoever takes them apart.
"""

from __future__ import annotations

import logging
from time import perf_counter
from types import TracebackType
from typing import Self

from turnwise_server import tracing
from turnwise_server.auth import Caller
from turnwise_server.limits import Intake
from turnwise_server.logs import CURRENT, Note
from turnwise_server.metrics import Metrics
from turnwise_server.refusal import Refusal
from turnwise_server.settings import Settings

logger = logging.getLogger(__name__)


class Desk:
    """Admission by ``settings``, counted in ``metrics``; spans if OpenTelemetry is set up when this is made."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.intake = Intake(settings.max_requests, settings.max_client_requests, settings.max_buffered)
        self.metrics = metrics
        self.tracer = tracing.configured()
        metrics.watch_in_flight(lambda: self.intake.in_flight)

    def operation(self, caller: Caller, request_id: str, traceparent: str | None = None) -> Visit:
        """A context manager around one operation. Entering it raises Refusal ``overloaded``.

        Inside, set ``name`` and ``status`` of what it gives. It must run in a task of its own, whose logs it marks.
        """
        return Visit(self, caller.name, request_id, traceparent)

    def stop(self) -> None:
        """Refuse everything from now on; what was let in goes on."""
        self.intake.stop()

    async def idle(self, patience: float) -> bool:
        """After :meth:`stop`: whether everything that was let in has ended within ``patience`` seconds."""
        return await self.intake.idle(patience)


class Visit(Note):
    """One operation on its way."""

    __slots__ = ("_began", "_client", "_desk", "_span", "_traceparent")

    def __init__(self, desk: Desk, client: str, request_id: str, traceparent: str | None) -> None:
        super().__init__(request_id, None if traceparent is None else tracing.trace_id(traceparent))
        self._desk = desk
        self._client = client
        self._traceparent = traceparent
        self._span: tracing.Span | None = None

    def refused(self, refusal: Refusal) -> None:
        """The operation was answered with a refusal (one that leaves the block is noticed without this)."""
        self.status = refusal.status
        self._desk.metrics.rejections[refusal.problem] += 1

    def __enter__(self) -> Self:
        CURRENT.set(self)
        self.enter()
        if self._desk.tracer is not None:
            self._span = self._desk.tracer.start(self._traceparent)
        return self

    def enter(self) -> None:
        """Let it in; :meth:`leave` must follow. Raises Refusal ``overloaded``."""
        self._began = perf_counter()
        try:
            self._desk.intake.enter(self._client)
        except Refusal as refusal:
            self.name = "refused"  # before anybody looked what it was
            self.refused(refusal)
            self._count()
            raise

    def leave(self) -> None:
        self._desk.intake.leave(self._client)
        self._count()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Refusal):
            self.refused(error)
        self.leave()
        if self._span is not None:
            attributes = {"turnwise.request_id": self.request_id, "turnwise.client": self._client}
            if self.session_id is not None:
                attributes["turnwise.session_id"] = self.session_id
            self._span.end(self.name, self.status, attributes)

    def _count(self) -> None:
        seconds = perf_counter() - self._began
        metrics = self._desk.metrics
        metrics.operations[self.name, self.status] += 1
        metrics.operation_seconds[self.name].observe(seconds)
        if logger.isEnabledFor(logging.INFO):
            fields = {
                "operation": self.name,
                "status": self.status,
                "client": self._client,
                "seconds": round(seconds, 6),
            }
            logger.info("%s %d", self.name, self.status, extra={"fields": fields})
