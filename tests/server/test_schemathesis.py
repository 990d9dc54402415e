"""The whole OpenAPI document against the server: every answer is one that it promises, and none a fault of ours.

``TURNWISE_PROOF=full`` tries many more inputs for each operation.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient
from toy_environments import Crashing, Guess

from turnwise_server.app import create_app
from turnwise_server.auth import Token
from turnwise_server.settings import Settings

pytestmark = pytest.mark.slow

EXAMPLES = 300 if os.environ.get("TURNWISE_PROOF") == "full" else 20
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: The only 5xx for what a client sends to a healthy server: an environment broke, or there is no room.
NAMED = {"urn:turnwise:env-failed", "urn:turnwise:too-many-sessions"}
HEADERS = {"host": "127.0.0.1:8000", "authorization": "Bearer coach-token-0123456789"}

coach = Token(name="coach", token="coach-token-0123456789", scopes=frozenset({"act", "trainer"}))
app = create_app([Guess, Crashing], Settings(max_sessions=64), [coach])
schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)
answers: Counter[tuple[str, int]] = Counter()


def aim(case, client: TestClient, number: int) -> None:
    """Two of three inputs go to what exists, for random names alone would test nothing but 404."""
    if number % 3 == 0:
        return
    path, body = case.path_parameters or {}, case.body
    if "session_id" in path:
        answer = client.post("/v1/sessions", json={"env": "guess", "index": 5, "actions": [{"text": "1"}]})
        path["session_id"] = answer.json()["session_id"]
    if "env" in path:
        path["env"] = "guess"
    if isinstance(body, dict) and "env" in body:
        body["env"] = ("guess", "crashing")[number % 2]
        if number % 5:
            body |= {"split": "train", "index": number % 20, "options": {}, "expect_hash": None}
    if isinstance(body, dict) and "turn" in body and number % 5:
        body["turn"] = 1
    if isinstance(body, dict) and isinstance(body.get("requests"), list):
        body["requests"] = [*body["requests"][:5], {"method": "GET", "path": "/v1/envs"}]


@pytest.fixture(scope="module")
def client():
    with TestClient(app, headers=HEADERS, raise_server_exceptions=False) as client:
        yield client


numbers = iter(range(10**9))


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation(case, client):
    aim(case, client, next(numbers))
    response = case.call(headers=HEADERS)
    answers[case.operation.label, response.status_code] += 1
    assert response.status_code < 500 or response.json()["type"] in NAMED, response.text
    case.validate_response(response, checks=CHECKS)
    # a full server would only ever say so
    for session in client.get("/v1/sessions?limit=1000").json()["items"]:
        client.delete(f"/v1/sessions/{session['session_id']}")


def test_most_of_it_was_reached():
    """After the others: each operation gave an answer of success and one of refusal."""
    if not answers:
        pytest.skip("the operations were not tried in this run")
    tried = {operation for operation, _ in answers}
    assert len(tried) == sum(len(methods) for methods in app.openapi()["paths"].values())
    assert {operation for operation, status in answers if status < 300} == tried
    assert {operation for operation, status in answers if status >= 400} == tried - {"GET /v1/envs"}
