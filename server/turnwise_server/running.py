"""One server process from start to end: environments, socket, tokens, uvicorn, and a quiet exit."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from errno import EADDRINUSE
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from turnwise_envs.environment import Environment
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.registry import load, read
from turnwise_envs.types import EnvSpec
from turnwise_server import logs, tracing
from turnwise_server.app import create_app
from turnwise_server.auth import Token, read_tokens, state_directory, write_trainer_token
from turnwise_server.connections import Patience, bounded
from turnwise_server.journal.schema import JournalRefused
from turnwise_server.limits import descriptors
from turnwise_server.settings import Settings
from turnwise_server.sockets import SocketProtocol

BACKLOG = 2048
#: Seconds that operations in flight get after a signal, and then their connections; container runtimes kill after ten.
GRACE = 5.0
GRACE_CONNECTIONS = 2
#: Seconds for the last replies to leave, before their connections are closed.
LAST_REPLIES = 0.1
#: Descriptors for other things than connections: journals, workers, environments.
SPARE_DESCRIPTORS = 1024
#: Seconds an idle connection is kept: longer than a model thinks between two turns.
KEEP_ALIVE = 75
#: Bytes that a frame of a socket may have beside a body: a larger one ends its connection.
ENVELOPE = 64 * 1024


class CannotServe(Exception):
    """The server cannot start. ``exit_code`` is 2 for what was asked wrongly, 1 for what the machine refuses."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(env_ids: Sequence[str], settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Prints one line when requests are accepted, and one for a fresh token file.

    Raises:
        CannotServe: before anything was accepted.
    """
    envs = find(env_ids)
    tokens: list[Token] = []
    if settings.tokens_file is not None:
        try:
            tokens = read_tokens(settings.tokens_file)
        except ValueError as error:
            raise CannotServe(str(error), 2) from error
    listener = listen(settings.host, settings.port)
    token_path: Path | None = None
    port = listener.getsockname()[1]
    temporary: Path | None = None
    try:
        if settings.journal is None and settings.port == 0:
            temporary = Path(tempfile.mkdtemp(prefix="turnwise-journal-"))
        journal = settings.journal or temporary or default_journal(envs, port)
        settings = settings.model_copy(update={"journal": journal})
        if settings.tokens_file is None:
            try:
                token_path, token = write_trainer_token(port)
            except OSError as error:
                raise CannotServe(f"cannot write the trainer token: {error}", 1) from error
            tokens = [token]
        gc.collect()
        gc.freeze()  # what was imported is no garbage, and to look through it holds up all sessions
        _serve(envs, settings, tokens, listener, lambda: _announce(envs, settings.host, port, token_path))
    finally:
        listener.close()
        if token_path is not None:
            token_path.unlink(missing_ok=True)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    _exit_past_hung_threads()


def find(words: Sequence[str]) -> list[type[Environment]]:
    """The classes that these words of a command line name, as :func:`turnwise_envs.registry.read` reads them.

    Import paths may start from the current directory. Raises CannotServe.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found: dict[str, type[Environment]] = {}
    try:
        named = read(words)
    except UnknownEnvironment as error:
        raise CannotServe(str(error), 2) from error
    for env_id, arguments in named:
        try:
            env_class = load(env_id, arguments)
        except UnknownEnvironment as error:
            raise CannotServe(str(error), 2) from error
        except Exception as error:
            raise CannotServe(
                f"environment {env_id!r} cannot be imported: {type(error).__name__}: {error}", 2
            ) from error
        if not isinstance(getattr(env_class, "spec", None), EnvSpec) or not hasattr(env_class, "tasks"):
            raise CannotServe(f"environment {env_id!r} lacks spec or tasks", 2)
        if env_class.spec.id in found:
            raise CannotServe(f"environment id {env_class.spec.id!r} is given twice", 2)
        found[env_class.spec.id] = env_class
    return list(found.values())


def default_journal(envs: Sequence[type[Environment]], port: int) -> Path:
    """Where a server of these environments keeps its journal if nobody says so: the same place after a restart."""
    names = "+".join(sorted(env_class.spec.id for env_class in envs))
    return state_directory() / "journals" / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', names)[:100]}-{port}"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CannotServe."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == EADDRINUSE:
            advice = "choose another with --port, or --port 0 for any free one"
            raise CannotServe(f"port {port} on {host} is in use; {advice}", 1) from error
        raise CannotServe(f"cannot listen on {host} port {port}: {error.strerror or error}", 1) from error


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """uvicorn as the command line runs it."""
    room = descriptors(settings.max_connections + SPARE_DESCRIPTORS) - SPARE_DESCRIPTORS
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded(settings, app.state.metrics, max(1, min(settings.max_connections, room))),
        ws=SocketProtocol,
        ws_max_size=settings.max_body + ENVELOPE,
        ws_per_message_deflate=False,
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE_CONNECTIONS,
        proxy_headers=False,
    )


class Server(uvicorn.Server):
    """uvicorn that says when it is ready, drops clients that keep it waiting, and finishes what it has begun."""

    def __init__(self, app: FastAPI, settings: Settings, on_ready: Callable[[], None]) -> None:
        super().__init__(configured(app, settings))
        self._app = app
        self._patience = Patience(settings.client_timeout)
        self._on_ready = on_ready
        self._sweeping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            connections = self.server_state.connections
            self._app.state.metrics.watch_connections(lambda: len(connections))
            self._sweeping = asyncio.create_task(self._patience.run(connections))
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.ready = False
        self._app.state.desk.stop()
        await self._app.state.desk.idle(GRACE)
        await asyncio.sleep(LAST_REPLIES)
        if self._sweeping is not None:
            self._sweeping.cancel()
        await super().shutdown(sockets)


def _serve(
    envs: Sequence[type[Environment]],
    settings: Settings,
    tokens: Sequence[Token],
    listener: socket.socket,
    on_ready: Callable[[], None],
) -> None:
    logs.configure(settings.log_level, [token.token for token in tokens])
    try:
        tracing.configure()
    except ValueError as error:
        raise CannotServe(str(error), 2) from error
    try:
        app = create_app(envs, settings, tokens)
    except JournalRefused as error:
        raise CannotServe(str(error), 1) from error

    def ready() -> None:
        app.state.workers.warm()
        on_ready()

    server = Server(app, settings, ready)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after its graceful stop; met by this handler, that is no death by signal.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, stop)
    loop = server.config.get_loop_factory()
    assert loop is not None
    running = loop()
    try:
        # Not asyncio.run: it would wait for threads that hang in an environment.
        running.run_until_complete(server.serve([listener]))
    finally:
        running.close()
        tracing.shutdown()


def _announce(envs: Sequence[type[Environment]], host: str, port: int, token_path: Path | None) -> None:
    names = ", ".join(env_class.spec.id for env_class in envs)
    address = f"[{host}]" if ":" in host else host
    print(f"turnwise: serving {names} on http://{address}:{port}", flush=True)
    if token_path is not None:
        print(f"turnwise: trainer token in {token_path}", flush=True)


def _exit_past_hung_threads() -> None:
    """Python joins every thread before it exits, but one that hangs in an environment would never end."""
    stuck = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in stuck:
        thread.join(0.2)
        if thread.is_alive():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
