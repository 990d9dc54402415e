"""Any MCP server as an environment: ``turnwise serve mcp --command "npx -y some-server" --tasks tasks.jsonl``.

The server's tools become the policy's, and :mod:`.errands` says what is asked of it and how that is scored. Each
episode has an MCP session of its own: a process started for it, or a session with the server behind ``--url``.

What a foreign server answers may differ from day to day, so the environment is not deterministic: the environment
server journals results, and its replay never calls twice. With ``--deterministic true`` the user promises otherwise,
gains forks, and has ``turnwise check-env`` hold the promise. With ``--stateless true`` calls change nothing outside,
so that a client may replay an episode elsewhere.

A refused call and one that takes too long are observations. A server that dies, or does not speak MCP, is an
EnvironmentFault: no policy should be rewarded or blamed for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from mcp.types import CallToolResult, TextContent, Tool

from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment
from turnwise_envs.plugins import mcp_link
from turnwise_envs.plugins.errands import (
    ANSWER_TOOL,
    ErrandEnvironment,
    Errands,
    chosen,
    read_errands,
    spec_of,
)
from turnwise_envs.plugins.mcp_link import Link, Server
from turnwise_envs.plugins.private import Headers, child_environment
from turnwise_envs.tools_api import ToolAnswer, Toolbox, clip
from turnwise_envs.types import JsonObject, ToolSpec

#: Seconds for a server's first start, when ``npx`` may have to fetch it, and for that of an episode.
FIRST_START, START = 300.0, 25.0
#: Where a server believes its private folder to be, as far as the policy can see.
WORLD = "/world"


class McpEnvironment(ErrandEnvironment):
    """One episode with an MCP server. The class attributes are set by :func:`mcp`."""

    server: ClassVar[Server]
    folder: ClassVar[Path | None]
    timeout: ClassVar[float]
    max_chars: ClassVar[int]

    _link: Link | None = None
    _world: Path | None = None

    async def open(self) -> None:
        if self.folder is not None:
            self._world = await asyncio.to_thread(_copy, self.folder)
        self._link = await Link.open(self.server, START, self._world)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()
        if self._world is not None:
            await asyncio.to_thread(shutil.rmtree, self._world, ignore_errors=True)

    async def call(self, name: str, arguments: JsonObject) -> ToolAnswer:
        assert self._link is not None
        result = await self._link.call(name, self._real(arguments), self.timeout)
        shown = self.server.hide(_text(result))
        if self._world is not None:
            shown = shown.replace(str(self._world), WORLD)
        return ToolAnswer(clip(shown, self.max_chars), effective=not result.is_error)

    def _real(self, value: Any) -> Any:
        """``value`` with the folder's real place for the one that the policy sees."""
        if self._world is None:
            return value
        if isinstance(value, str):
            return value.replace(WORLD, str(self._world))
        if isinstance(value, dict):
            return {key: self._real(item) for key, item in value.items()}
        return [self._real(item) for item in value] if isinstance(value, list) else value


@adapter
def mcp(
    name: str = "",
    *,
    tasks: Path,
    command: str | None = None,
    url: str | None = None,
    only: str | None = None,
    folder: Path | None = None,
    env: str | None = None,
    header: str | None = None,
    timeout: float = 20.0,
    max_chars: int = 8000,
    max_turns: int = 20,
    stateless: bool = False,
    deterministic: bool = False,
) -> type[Environment]:
    """Make an environment of the MCP server that ``command`` starts, or that answers at ``url``.

    ``only`` names the tools that the policy gets, separated by commas. Of ``folder``, each episode has a copy as its
    server's working directory, shown as ``/world``. ``env`` names variables that the process gets besides PATH and the
    like; ``header`` is sent to ``url``. ``timeout`` is in seconds a call, ``max_chars`` the length of a result.

    Raises ValueError for arguments that make no sense, BadTasks, EnvironmentFault if the server cannot be reached.
    """
    server = _server(command, url, env, header)
    errands = read_errands(tasks)
    if folder is not None and (url is not None or not folder.is_dir()):
        raise ValueError(f"--folder {folder}: " + ("needs --command" if url is not None else "is no folder"))
    specs = chosen([_spec(one) for one in mcp_link.run(_list(server, folder))], only)
    toolbox = Toolbox([*specs, ANSWER_TOOL])

    class Made(McpEnvironment):
        spec = spec_of(
            f"mcp:{name}" if name else "mcp",
            f"Tools of an MCP server: {', '.join(one.name for one in specs)}."[:500],
            toolbox,
            errands,
            None if folder is None else _digest(folder),
            max_turns=max_turns,
            deterministic=deterministic,
            stateless=stateless,
        )
        tasks = Errands(spec, errands)
        box = toolbox

    Made.server = server
    Made.folder = None if folder is None else folder.resolve()
    Made.timeout = timeout
    Made.max_chars = max_chars
    return Made


def _server(command: str | None, url: str | None, env: str | None, header: str | None) -> Server:
    if (command is None) == (url is None):
        raise ValueError('give either --command "program arguments" or --url ADDRESS')
    if url is not None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(f"--url {url} is no http address")
        if env is not None:
            raise ValueError("--env is for --command; a server behind --url has its own environment")
        return Server((), url, None, Headers(header))
    if header is not None:
        raise ValueError("--header is for --url; give a process its secrets with --env")
    argv = tuple(shlex.split(command or ""))
    if not argv:
        raise ValueError("--command is empty")
    if shutil.which(argv[0]) is None:
        raise ValueError(f"--command: there is no program {argv[0]}")
    child_environment(env)  # says now what is not set
    return Server(argv, None, env, Headers(None))


async def _list(server: Server, folder: Path | None) -> list[Tool]:
    world = None if folder is None else await asyncio.to_thread(_copy, folder)
    try:
        link = await Link.open(server, FIRST_START, world)
        try:
            return await link.tools()
        finally:
            await link.close()
    finally:
        if world is not None:
            await asyncio.to_thread(shutil.rmtree, world, ignore_errors=True)


def _spec(tool: Tool) -> ToolSpec:
    return ToolSpec(name=tool.name, description=tool.description or tool.title or "", parameters=tool.input_schema)


def _text(result: CallToolResult) -> str:
    """The result as text; pictures, sounds and links are named."""
    parts = []
    for block in result.content:
        if isinstance(block, TextContent):
            parts.append(block.text)
        elif block.type == "resource":
            parts.append(getattr(block.resource, "text", f"[{block.resource.uri}]"))
        elif block.type == "resource_link":
            parts.append(f"[{block.name}: {block.uri}]")
        else:
            parts.append(f"[{block.type} {block.mime_type}]")
    if not parts and result.structured_content is not None:
        parts.append(json.dumps(result.structured_content, ensure_ascii=False, sort_keys=True))
    return "\n".join(parts)


def _copy(folder: Path) -> Path:
    made = Path(tempfile.mkdtemp(prefix="turnwise-mcp-")).resolve()
    shutil.copytree(folder, made, dirs_exist_ok=True, symlinks=True)
    return made


def _digest(folder: Path) -> str:
    """Changes with any name or byte in the folder."""
    found = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()):
        found.update(f"{path.relative_to(folder)}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
