"""Any of our environments as an MCP server, over stdio or streamable HTTP, for any client of the protocol.

What a model should see is the content of a result; reward, end and hash are in its ``_meta`` under ``turnwise/step``,
for whoever drives the model. On stdio a process serves one client, and so one episode at a time. Over HTTP, where
newer versions of MCP know no sessions, each episode has a name that its calls carry (:mod:`.desk`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent, Tool

from turnwise_envs.environment import Environment
from turnwise_envs.outward.desk import START, Desk

META = "turnwise/step"


class EnvironmentServer(MCPServer):
    """An MCP server whose tools are those of a :class:`Desk`."""

    def __init__(self, env_class: type[Environment], *, handles: bool) -> None:
        spec = env_class.spec
        super().__init__(
            f"turnwise {spec.id}",
            version=spec.version,
            instructions=f"{spec.description} Call {START} first: it gives the task.",
            log_level="WARNING",
        )
        self.desk = Desk(env_class, handles=handles)

    async def list_tools(self) -> list[Tool]:
        return [
            Tool(name=one.name, description=one.description, input_schema=one.parameters) for one in self.desk.tools
        ]

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> CallToolResult:
        told = await self.desk.call(name, arguments)
        content = TextContent(type="text", text=told.text)
        return CallToolResult(content=[content], is_error=told.wrong, _meta={META: told.facts} if told.facts else None)


def serve(env_class: type[Environment], port: int | None) -> None:
    """Serve until the client hangs up (stdio) or a signal comes (HTTP on ``port`` of this machine). Raises ValueError."""
    server = EnvironmentServer(env_class, handles=port is not None)

    async def run() -> None:
        try:
            if port is None:
                await server.run_stdio_async()
            else:
                await server.run_streamable_http_async(host="127.0.0.1", port=port)
        finally:
            await server.desk.close()

    asyncio.run(run())
