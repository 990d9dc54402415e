"""``POST /v1/batch``: many calls in one request, run at once, each answered on its own."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from turnwise_envs.wire import BatchRequest, BatchView, Call
from turnwise_server.bodies import parse, read_bytes, validate
from turnwise_server.dispatch import Carrier, refused
from turnwise_server.logs import CURRENT
from turnwise_server.operations import Answer, Context
from turnwise_server.problems import refusals
from turnwise_server.refusal import Refusal
from turnwise_server.routes import Direct, json_body

#: Calls in one batch. They run at once, so this bounds what one request can set going.
MAX_CALLS = 1024

router = APIRouter(prefix="/v1", route_class=Direct)


@router.post(
    "/batch",
    response_model=BatchView,
    responses=refusals("invalid-request", "payload-too-large"),
    openapi_extra=json_body(BatchRequest),
)
async def batch(request: Request) -> Response:
    """Run calls together; ``responses`` are in the order of ``requests``. A call cannot be a batch."""
    caller = request.state.caller
    batch = parse(BatchRequest, await read_bytes(request, request.app.state.settings.max_body))
    if len(batch.requests) > MAX_CALLS:
        raise Refusal("invalid-request", f"requests: {len(batch.requests)} of them; a batch has at most {MAX_CALLS}")
    note = CURRENT.get()
    assert note is not None, "the gate lets nobody in without one"
    carrier = Carrier(Context(request.app.state.store, caller), request.app.state.desk, note.request_id)
    answers = await asyncio.gather(*(_one(carrier, value) for value in batch.requests))
    replies = b",".join(b'{"status":%d,"body":%b}' % (done.status, done.body or b"null") for done in answers)
    return Response(b'{"responses":[%b]}' % replies, media_type="application/json")


async def _one(carrier: Carrier, value: object) -> Answer:
    try:
        call = validate(Call, value)
    except Refusal as refusal:
        return refused(refusal, "/v1/batch")
    return await carrier.perform(call)
