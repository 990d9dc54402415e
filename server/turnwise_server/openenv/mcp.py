"""OpenEnv's JSON-RPC: the tools of an environment, and sessions for clients that have no socket."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import from_json, to_json

from turnwise_envs.types import JsonObject, Noun
from turnwise_server.bodies import check_values
from turnwise_server.openenv.frames import Code, Failed, ResetData, read, tool_action, tools_of
from turnwise_server.openenv.seat import Seat
from turnwise_server.refusal import Refusal

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
SERVER_ERROR = -32000
#: What a failure is called in JSON-RPC; others are INTERNAL_ERROR.
NUMBERS: dict[Code, int] = {
    "VALIDATION_ERROR": INVALID_PARAMS,
    "SESSION_ERROR": INVALID_PARAMS,
    "CAPACITY_REACHED": SERVER_ERROR,
}


class RpcRequest(Noun):
    """A JSON-RPC 2.0 request."""

    jsonrpc: str = Field(pattern=r"^2\.0$")
    method: str
    params: JsonObject = Field(default_factory=dict)
    id: int | str | None = None


class RpcFailed(Exception):
    """Answered as a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


async def answer_text(seat: Seat, text: str | bytes, alone: bool) -> str:
    """The JSON answer to a JSON request. ``alone``: the seat is for this one request, and ``session_id`` says whose."""
    try:
        check_values(text)
        value = from_json(text)
    except Refusal as refusal:
        return to_json(_error(None, RpcFailed(INVALID_REQUEST, refusal.detail))).decode()
    except ValueError as error:
        return to_json(_error(None, RpcFailed(PARSE_ERROR, f"Parse error: {error}"))).decode()
    return to_json(await answer(seat, value, alone)).decode()


async def answer(seat: Seat, value: object, alone: bool) -> JsonObject:
    """The answer to a request that was parsed already."""
    try:
        request = RpcRequest.model_validate(value, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        return _error(None, RpcFailed(INVALID_REQUEST, f"Invalid request: {where}: {fault['msg']}"))
    try:
        return {"jsonrpc": "2.0", "id": request.id, "result": await _result(seat, request, alone)}
    except RpcFailed as failed:
        return _error(request.id, failed)
    except Failed as failed:
        number = NUMBERS.get(failed.code, INTERNAL_ERROR)
        return _error(request.id, RpcFailed(number, failed.message, {"code": failed.code, **failed.more}))


async def _result(seat: Seat, request: RpcRequest, alone: bool) -> JsonObject:
    params = dict(request.params)
    session_id = params.pop("session_id", None)
    if session_id is not None and not isinstance(session_id, str):
        raise RpcFailed(INVALID_PARAMS, "session_id: must be a string")
    match request.method:
        case "tools/list":
            return {"tools": tools_of(seat.spec)}
        case "openenv/session/create":
            if alone or not seat.taken:
                await seat.reset(read(ResetData, params, "Invalid params"))
            return {"session_id": seat.name}
        case "openenv/session/close":
            if session_id is None:
                raise RpcFailed(INVALID_PARAMS, "Invalid params - 'session_id' is required")
            if not alone and session_id == seat.name:
                raise RpcFailed(INVALID_REQUEST, "Cannot close active WebSocket-managed session via MCP method")
            await seat.close(session_id)
            return {"session_id": session_id, "closed": True}
        case "tools/call":
            if alone:
                if session_id is None:
                    raise RpcFailed(
                        INVALID_PARAMS, "a tool acts in an episode: pass the session_id of openenv/session/create"
                    )
                await seat.attach(session_id)
            elif not seat.taken:
                await seat.reset(ResetData())
            return await _called(seat, params)
        case _:
            raise RpcFailed(METHOD_NOT_FOUND, f"Method not found: {request.method}")


async def _called(seat: Seat, params: JsonObject) -> JsonObject:
    """What a tool said, as MCP says it; ``data`` is what OpenEnv's client returns to its caller."""
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not name:
        raise RpcFailed(INVALID_PARAMS, "Missing 'name' in params")
    if not isinstance(arguments, dict):
        raise RpcFailed(INVALID_PARAMS, "'arguments' must be an object")
    known = [tool["name"] for tool in tools_of(seat.spec)]
    if name not in known:
        raise RpcFailed(INVALID_PARAMS, f"Tool not found: {name}; there are: {', '.join(known)}")
    told = await seat.step(tool_action(seat.spec, name, arguments, seat.turn))
    text = told["observation"]["text"]
    return {
        "content": [{"type": "text", "text": text}],
        "data": text,
        "isError": not told["metadata"]["info"]["action_valid"],
        "reward": told["reward"],
        "done": told["done"],
        "metadata": told["metadata"],
    }


def _error(request_id: Any, failed: RpcFailed) -> JsonObject:
    error: JsonObject = {"code": failed.code, "message": failed.message, "data": failed.data}
    return {"jsonrpc": "2.0", "id": request_id, "error": error}
