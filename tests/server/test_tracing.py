"""Trace context: valid ids only, spans under the client's where OpenTelemetry is set up, and nothing otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from turnwise_envs import Environment, EnvSpec, FunctionTaskSet, Observation, StepResult
from turnwise_server.tracing import configure, configured, trace_id

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACE = f"00-{ID}-{PARENT}-01"


class Looking(Environment):
    """Says which trace a step is in, as instrumentation inside an environment would see it."""

    spec = EnvSpec(id="looking")
    tasks = FunctionTaskSet(spec, lambda split, index: "look")

    async def reset(self, task, seed, options) -> Observation:
        return Observation.say("look")

    async def step(self, action) -> StepResult:
        here = trace.get_current_span().get_span_context()
        return StepResult(observation=Observation.say(f"{here.trace_id:032x}"))


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (TRACE, ID),
        (TRACE.replace("00-", "01-", 1) + "-more", ID),
        (TRACE + "-more", None),
        (TRACE.replace("00-", "ff-", 1), None),
        (TRACE.upper(), None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{ID}-{'0' * 16}-01", None),
        (f"00-{ID}-{PARENT}", None),
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_trace_ids(header, known):
    assert trace_id(header) == known


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter.get_finished_spans


def test_without_a_provider_there_is_no_tracer():
    assert configured() is None


async def test_operations_are_spans_under_the_clients(serve, spans):
    api = await serve([Looking])
    sid = await api.open("looking")
    answer = await api.step(sid, 0, headers={"traceparent": TRACE, "x-request-id": "r-1"})
    assert answer.json()["observation"]["messages"][0]["content"] == ID
    await api.step(sid, 7, headers={"traceparent": "nonsense"})
    created, stepped, refused = spans()
    assert (created.name, created.parent) == ("create_session", None)
    assert stepped.name == "step"
    assert (f"{stepped.context.trace_id:032x}", f"{stepped.parent.span_id:016x}") == (ID, PARENT)
    assert stepped.attributes == {
        "http.response.status_code": 200,
        "turnwise.request_id": "r-1",
        "turnwise.client": "",
        "turnwise.session_id": sid,
    }
    assert refused.parent is None
    assert refused.attributes["http.response.status_code"] == 409
    assert refused.status.is_unset  # the client's fault is no error of ours


async def test_calls_of_a_batch_are_in_their_own_traces(serve, spans):
    api = await serve([Looking])
    other = TRACE.replace("4bf9", "5ca0")
    calls = [{"method": "GET", "path": "/v1/envs", "trace": one} for one in (TRACE, other)]
    await api.http.post("/v1/batch", json={"requests": calls})
    assert [(span.name, f"{span.context.trace_id:032x}") for span in spans()[:2]] == [
        ("list_envs", ID),
        ("list_envs", ID.replace("4bf9", "5ca0")),
    ]


def test_an_exporter_that_is_not_there_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    with pytest.raises(ValueError, match="no exporter 'carrier-pigeon' is installed"):
        configure()


def test_the_standard_variables_are_enough():
    """In a process of its own, since a provider is set once and for all."""
    code = (
        "from turnwise_server import tracing; tracing.configure(); span = tracing.configured().start(None);"
        "span.end('step', 200, {}); tracing.shutdown()"
    )
    environ = {**os.environ, "OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "envs"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=240, check=True
    )
    span = json.loads(done.stdout)
    assert (span["name"], span["resource"]["attributes"]["service.name"]) == ("step", "envs")
