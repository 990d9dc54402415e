"""``turnwise serve``: run environments as an HTTP service until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from turnwise_server import defaults

app = typer.Typer()


@app.command()
def serve(
    envs: Annotated[
        list[str], typer.Argument(metavar="ENV...", help="Ids of environments, or import paths module:Class.")
    ],
    host: Annotated[str, typer.Option(envvar="TURNWISE_HOST", help="Address to listen on.")] = defaults.HOST,
    port: Annotated[
        int, typer.Option(envvar="TURNWISE_PORT", min=0, max=65535, help="0 picks a free port.")
    ] = defaults.PORT,
    step_timeout: Annotated[
        float,
        typer.Option(envvar="TURNWISE_STEP_TIMEOUT", min=0.001, help="Seconds for one call into an environment."),
    ] = defaults.STEP_TIMEOUT,
    max_sessions: Annotated[
        int, typer.Option(envvar="TURNWISE_MAX_SESSIONS", min=1, help="Live sessions at a time.")
    ] = defaults.MAX_SESSIONS,
    idle_timeout: Annotated[
        float,
        typer.Option(envvar="TURNWISE_IDLE_TIMEOUT", min=0.001, help="Seconds until an unused session expires."),
    ] = defaults.IDLE_TIMEOUT,
    max_body: Annotated[
        int, typer.Option(envvar="TURNWISE_MAX_BODY", min=1024, help="Bytes of a request body.")
    ] = defaults.MAX_BODY,
    tokens_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TURNWISE_TOKENS_FILE",
            help='Tokens as JSON lines {"name", "token", "scopes"}. Without it, a trainer token is made for this run.',
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve environments over HTTP, for example: turnwise serve household --port 0"""
    from turnwise_server.running import CannotServe, run
    from turnwise_server.settings import Settings

    settings = Settings(
        host=host,
        port=port,
        step_timeout=step_timeout,
        max_sessions=max_sessions,
        idle_timeout=idle_timeout,
        max_body=max_body,
        tokens_file=tokens_file,
    )
    try:
        run(envs, settings)
    except CannotServe as error:
        typer.echo(f"turnwise: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
