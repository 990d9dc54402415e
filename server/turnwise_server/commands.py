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
    max_requests: Annotated[
        int, typer.Option(envvar="TURNWISE_MAX_REQUESTS", min=1, help="Operations in flight at a time.")
    ] = defaults.MAX_REQUESTS,
    max_client_requests: Annotated[
        int, typer.Option(envvar="TURNWISE_MAX_CLIENT_REQUESTS", min=1, help="The same for one client.")
    ] = defaults.MAX_CLIENT_REQUESTS,
    max_buffered: Annotated[
        int, typer.Option(envvar="TURNWISE_MAX_BUFFERED", min=1024, help="Bytes of all large bodies on their way.")
    ] = defaults.MAX_BUFFERED,
    max_connections: Annotated[
        int, typer.Option(envvar="TURNWISE_MAX_CONNECTIONS", min=1, help="Open connections.")
    ] = defaults.MAX_CONNECTIONS,
    client_timeout: Annotated[
        float,
        typer.Option(envvar="TURNWISE_CLIENT_TIMEOUT", min=0.001, help="Seconds for a client to send or to read."),
    ] = defaults.CLIENT_TIMEOUT,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            envvar="TURNWISE_ALLOWED_HOSTS",
            metavar="NAME,...",
            help="Names under which a proxy reaches this server; calls under them need a token.",
            show_default=False,
        ),
    ] = None,
    allowed_origins: Annotated[
        list[str] | None,
        typer.Option(
            envvar="TURNWISE_ALLOWED_ORIGINS",
            metavar="ORIGIN,...",
            help="Origins, such as https://lab.example, whose pages may open sockets here.",
            show_default=False,
        ),
    ] = None,
    log_level: Annotated[
        defaults.LogLevel, typer.Option(envvar="TURNWISE_LOG_LEVEL", help="At info, one line an operation.")
    ] = defaults.LOG_LEVEL,
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
        max_requests=max_requests,
        max_client_requests=max_client_requests,
        max_buffered=max_buffered,
        max_connections=max_connections,
        client_timeout=client_timeout,
        allowed_hosts=frozenset(allowed_hosts or ()),
        allowed_origins=frozenset(allowed_origins or ()),
        log_level=log_level,
        tokens_file=tokens_file,
    )
    try:
        run(envs, settings)
    except CannotServe as error:
        typer.echo(f"turnwise: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
