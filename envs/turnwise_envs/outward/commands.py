"""``turnwise mcp``: an environment as an MCP server."""

from __future__ import annotations

from typing import Annotated

import typer

from turnwise_envs import registry
from turnwise_envs.errors import UnknownEnvironment

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})  # options of an adapter follow its name
def mcp(
    env: Annotated[
        list[str],
        typer.Argument(
            metavar="ENV",
            help="An id or an adapter with its options (see `turnwise envs`), or module:Class of the current directory.",
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Serve streamable HTTP at /mcp of this port, on this machine, instead of stdio."
        ),
    ] = None,
) -> None:
    """Serve an environment to MCP clients, over stdio or HTTP.

    \b
    Example:
      turnwise mcp household
      turnwise mcp household --port 8765
    """
    env_class = registry.load_one(env)
    from turnwise_envs.outward.mcp import serve

    try:
        serve(env_class, port)
    except ValueError as error:
        raise UnknownEnvironment(str(error)) from error
