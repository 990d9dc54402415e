"""A small MCP server for tests. By itself it speaks JSON-RPC on stdio without any package, so that it starts at once;
with a port it is the same tools over streamable HTTP, by the SDK."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

notes: list[str] = []


def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


def note(text: str) -> str:
    """Keep a note for this session."""
    notes.append(text)
    return f"{len(notes)} notes"


def variable(name: str) -> str:
    """An environment variable."""
    return os.environ.get(name, "not set")


def fail() -> str:
    """Always fails."""
    raise ValueError("the stars are wrong")


def sleep(seconds: float) -> str:
    """Wait."""
    time.sleep(seconds)
    return "rested"


def long(n: int) -> str:
    """n letters."""
    return "x" * n


def write(path: str, text: str) -> str:
    """Write a file."""
    Path(path).write_text(text)
    return f"wrote {Path(path).absolute()}"


def files() -> str:
    """The files here."""
    return " ".join(sorted(one.name for one in Path.cwd().iterdir()))


def die() -> str:
    """End the server."""
    print("killed by a tool", file=sys.stderr, flush=True)
    os._exit(3)


TOOLS: list[Callable[..., str]] = [add, note, variable, fail, sleep, long, write, files, die]
KINDS = {int: "integer", float: "number", str: "string"}


def described(function: Callable[..., str]) -> dict[str, object]:
    kinds = {name: {"type": KINDS[kind]} for name, kind in function.__annotations__.items() if name != "return"}
    schema = {"type": "object", "properties": kinds, "required": list(kinds)}
    return {"name": function.__name__, "description": function.__doc__, "inputSchema": schema}


def answer(method: str, params: dict[str, object]) -> dict[str, object] | None:
    if method == "initialize":
        info = {"name": "toy", "version": "1"}
        return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":  # in two pages
        return (
            {"tools": list(map(described, TOOLS[5:]))}
            if params.get("cursor")
            else {
                "tools": list(map(described, TOOLS[:5])),
                "nextCursor": "rest",
            }
        )
    if method == "tools/call":
        if params["name"] == "picture":
            return {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]}
        try:
            text = {one.__name__: one for one in TOOLS}[params["name"]](**params["arguments"])
            return {"content": [{"type": "text", "text": text}]}
        except ValueError as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
    return None


def picture() -> str:
    """A picture."""
    return ""


TOOLS.append(picture)

if __name__ == "__main__":
    if len(sys.argv) > 1:
        from mcp.server import MCPServer

        app = MCPServer("toy", log_level="CRITICAL")  # a traceback in colours takes seconds
        for tool in TOOLS:
            app.add_tool(tool)
        app.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            result = answer(asked["method"], asked.get("params") or {})
            missing = {"code": -32601, "message": f"no method {asked['method']}"}
            reply = {"error": missing} if result is None else {"result": result}
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **reply}), flush=True)
