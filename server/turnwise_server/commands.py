"""``turnwise serve``: run environments as an HTTP service until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from turnwise_server import defaults

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})  # options of an adapter follow its name
def serve(
    envs: Annotated[
        list[str],
        typer.Argument(
            metavar="ENV...",
            help="Ids of environments, import paths module:Class, or adapters with their options (see `turnwise envs`).",
        ),
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
    lifetime: Annotated[
        str, typer.Option(envvar="TURNWISE_LIFETIME", help="Time until any session expires: 12h, 7d, or seconds.")
    ] = defaults.LIFETIME,
    journal: Annotated[
        Path | None,
        typer.Option(
            envvar="TURNWISE_JOURNAL",
            metavar="DIR",
            help="Directory of journals, by default one in the user's state directory; a temporary one for --port 0.",
            show_default=False,
        ),
    ] = None,
    sync: Annotated[
        defaults.Sync,
        typer.Option(envvar="TURNWISE_SYNC", help="What an answered step survives: a killed process, or a power cut."),
    ] = defaults.SYNC,
    retain: Annotated[
        str,
        typer.Option(envvar="TURNWISE_RETAIN", help="Time for which a finished session is kept: 12h, 7d, or seconds."),
    ] = defaults.RETAIN,
    retain_bytes: Annotated[
        int,
        typer.Option(
            envvar="TURNWISE_RETAIN_BYTES",
            min=1024**2,
            help="Bytes of journal from which the oldest finished sessions go earlier.",
        ),
    ] = defaults.RETAIN_BYTES,
    passivate_after: Annotated[
        float,
        typer.Option(
            envvar="TURNWISE_PASSIVATE_AFTER", min=0.001, help="Seconds until an unused session leaves memory."
        ),
    ] = defaults.PASSIVATE_AFTER,
    snapshot_every: Annotated[
        int, typer.Option(envvar="TURNWISE_SNAPSHOT_EVERY", min=1, help="Turns between snapshots of an environment.")
    ] = defaults.SNAPSHOT_EVERY,
    max_history: Annotated[
        int, typer.Option(envvar="TURNWISE_MAX_HISTORY", min=1024, help="Bytes of a session's history.")
    ] = defaults.MAX_HISTORY,
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
    workers: Annotated[
        int,
        typer.Option(
            envvar="TURNWISE_WORKERS",
            min=1,
            help="Processes for blocking environments (SyncEnvironment); by default one a core, at most 8.",
            show_default=False,
        ),
    ] = defaults.WORKERS,
    pass_env: Annotated[
        list[str] | None,
        typer.Option(
            envvar="TURNWISE_PASS_ENV",
            metavar="NAME,...",
            help="Environment variables that workers get besides PATH, HOME and the like.",
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
        lifetime=_seconds("--lifetime", lifetime),
        journal=journal,
        sync=sync,
        retain=_seconds("--retain", retain),
        retain_bytes=retain_bytes,
        passivate_after=passivate_after,
        snapshot_every=snapshot_every,
        max_history=max_history,
        max_body=max_body,
        max_requests=max_requests,
        max_client_requests=max_client_requests,
        max_buffered=max_buffered,
        max_connections=max_connections,
        client_timeout=client_timeout,
        allowed_hosts=frozenset(allowed_hosts or ()),
        allowed_origins=frozenset(allowed_origins or ()),
        workers=workers,
        pass_env=frozenset(pass_env or ()),
        log_level=log_level,
        tokens_file=tokens_file,
    )
    try:
        run(envs, settings)
    except CannotServe as error:
        typer.echo(f"turnwise: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def _seconds(option: str, text: str) -> float:
    from turnwise_server.settings import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
