"""What can be set, and the ``TURNWISE_*`` variables it comes from when an app is built without the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from turnwise_server import defaults
from turnwise_server.defaults import LogLevel

#: In a variable: separated by commas or blanks.
Names = Annotated[frozenset[str], NoDecode]


def seconds(text: str | float) -> float:
    """A length of time as people write it, ``90s``, ``30m``, ``12h``, ``7d``, or a number of seconds.

    Raises ValueError.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time: write seconds, or 30m, 12h, 7d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


Duration = Annotated[float, BeforeValidator(seconds)]


class Settings(BaseSettings):
    """Settings of one server. Times are seconds, sizes bytes."""

    model_config = SettingsConfigDict(env_prefix="TURNWISE_", frozen=True, extra="forbid")

    host: str = defaults.HOST
    port: int = Field(default=defaults.PORT, ge=0, le=65535)
    step_timeout: float = Field(default=defaults.STEP_TIMEOUT, gt=0)
    max_sessions: int = Field(default=defaults.MAX_SESSIONS, ge=1)
    idle_timeout: float = Field(default=defaults.IDLE_TIMEOUT, gt=0)
    lifetime: Duration = Field(default=defaults.LIFETIME, gt=0, validate_default=True)
    passivate_after: float = Field(default=defaults.PASSIVATE_AFTER, gt=0)
    snapshot_every: int = Field(default=defaults.SNAPSHOT_EVERY, ge=1)
    max_history: int = Field(default=defaults.MAX_HISTORY, ge=1024)
    journal: Path | None = None
    sync: defaults.Sync = defaults.SYNC
    retain: Duration = Field(default=defaults.RETAIN, gt=0, validate_default=True)
    retain_bytes: int = Field(default=defaults.RETAIN_BYTES, ge=1024**2)
    max_body: int = Field(default=defaults.MAX_BODY, ge=1024)
    max_requests: int = Field(default=defaults.MAX_REQUESTS, ge=1)
    max_client_requests: int = Field(default=defaults.MAX_CLIENT_REQUESTS, ge=1)
    max_buffered: int = Field(default=defaults.MAX_BUFFERED, ge=1024)
    max_connections: int = Field(default=defaults.MAX_CONNECTIONS, ge=1)
    client_timeout: float = Field(default=defaults.CLIENT_TIMEOUT, gt=0)
    allowed_hosts: Names = frozenset()
    allowed_origins: Names = frozenset()
    workers: int = Field(default=defaults.WORKERS, ge=1)
    pass_env: Names = frozenset()
    log_level: LogLevel = defaults.LOG_LEVEL
    tokens_file: Path | None = None

    @field_validator("allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _split_lower(cls, value: str | Iterable[str]) -> frozenset[str]:
        return frozenset(name.lower() for name in _split(value))

    @field_validator("pass_env", mode="before")
    @classmethod
    def _split_as_it_is(cls, value: str | Iterable[str]) -> frozenset[str]:
        return frozenset(_split(value))

    @property
    def on_loopback(self) -> bool:
        """Only processes of this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def _split(value: str | Iterable[str]) -> list[str]:
    given = value if isinstance(value, str) else ",".join(value)
    return [name for name in re.split(r"[,\s]+", given) if name]
