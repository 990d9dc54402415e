"""The session rules against their model once more, with sessions that leave memory and servers that are killed."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from pathlib import Path

import httpx
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import initialize, rule
from test_server_model import Sessions
from toy_environments import Guess

from turnwise_server.app import create_app
from turnwise_server.settings import Settings


class Kept(Sessions):
    """The same calls, and between them sweeps and kills that must not show."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.lives = itertools.count()
        self.logs: dict[str, list[str | None]] = {}
        self.keys = itertools.count()
        self.serve(self.root / "0")

    def serve(self, directory: Path) -> None:
        self.directory = directory
        app = create_app([Guess], Settings(journal=directory, snapshot_every=2, passivate_after=100))
        self.store = app.state.store
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

    def stop(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.run_until_complete(self.http.aclose())

    def teardown(self) -> None:
        self.stop()
        self.loop.close()
        shutil.rmtree(self.root)

    @rule()
    def rest(self) -> None:
        for entry in self.store._entries.values():
            entry.session.last_used -= 200
        self.loop.run_until_complete(self.store.sweep())

    @rule()
    def kill(self) -> None:
        left = self.root / f"after {next(self.lives)}"
        left.mkdir()
        for path in (*self.directory.glob("*.sqlite"), *self.directory.glob("*.sqlite-wal")):
            shutil.copy(path, left)
        self.stop()
        self.serve(left)


TestKept = Kept.TestCase
TestKept.pytestmark = pytest.mark.slow
TestKept.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, database=None, phases=[Phase.generate]
)
