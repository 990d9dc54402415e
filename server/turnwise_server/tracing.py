"""W3C trace context: the trace a client is in goes into our logs and, where OpenTelemetry is set up, into spans.

A program that embeds the app sets up OpenTelemetry itself; ``turnwise serve`` does so when ``OTEL_TRACES_EXPORTER``
names an exporter. Without either, a ``traceparent`` only gives log lines their ``trace_id``, and no SDK is imported.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Protocol

#: version-trace-parent-flags; later versions may append fields.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id(traceparent: str) -> str | None:
    """The trace's 32 hex digits, or None if the header is not valid: then it does not exist, says the standard."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return found[1] if found and (found[2] is None or not traceparent.startswith("00")) else None


class Span(Protocol):
    """An operation in a trace; it is current for the task from start to end."""

    def end(self, name: str, status: int, attributes: Mapping[str, str]) -> None: ...


class Tracer(Protocol):
    def start(self, traceparent: str | None) -> Span:
        """A span of the server, under the client's if it named one."""
        ...


def configured() -> Tracer | None:
    """A tracer, if this process has a tracer provider."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None  # nobody can have set one without it
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return _OpenTelemetry(provider)


def configure() -> None:
    """Set up OpenTelemetry as its standard variables say: ``OTEL_TRACES_EXPORTER``, ``OTEL_SERVICE_NAME`` and so on.

    Raises:
        ValueError: an exporter is asked for that is not installed, in one line.
    """
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")]
    names = [name for name in names if name and name != "none"]
    if not names or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ValueError('OTEL_TRACES_EXPORTER is set; for that, pip install "turnwise[otel]"') from error
    resource = Resource.create({} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "turnwise"})
    provider = TracerProvider(resource=resource)
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    trace.set_tracer_provider(provider)


def shutdown() -> None:
    """Send what spans are still here."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None and hasattr(provider := trace.get_tracer_provider(), "shutdown"):
        provider.shutdown()


def _exporter(name: str) -> Any:
    """The exporter that is registered under ``name``, as every OpenTelemetry distribution finds it."""
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group="opentelemetry_traces_exporter")}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ValueError(f"OTEL_TRACES_EXPORTER: no exporter {name!r} is installed (there are: {known})")
    return found[name].load()()


class _OpenTelemetry:
    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("turnwise_server")
        self._propagator = TraceContextTextMapPropagator()

    def start(self, traceparent: str | None) -> Span:
        from opentelemetry import context, trace

        # A context of its own: what a task inherited is the trace of whoever started it.
        parent = self._propagator.extract(
            {} if traceparent is None else {"traceparent": traceparent}, context.Context()
        )
        span = self._tracer.start_span("turnwise", context=parent, kind=trace.SpanKind.SERVER)
        return _OpenSpan(span, context.attach(trace.set_span_in_context(span, parent)))


class _OpenSpan:
    def __init__(self, span: Any, attached: Any) -> None:
        self._span = span
        self._attached = attached

    def end(self, name: str, status: int, attributes: Mapping[str, str]) -> None:
        from opentelemetry import context, trace

        context.detach(self._attached)
        self._span.update_name(name)
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attributes(dict(attributes))
        if status >= 500:
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()
