"""What can be set, and the ``TURNWISE_*`` variables it comes from when an app is built without the command line."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from turnwise_server import defaults


class Settings(BaseSettings):
    """Settings of one server. Times are seconds, sizes bytes."""

    model_config = SettingsConfigDict(env_prefix="TURNWISE_", frozen=True, extra="forbid")

    host: str = defaults.HOST
    port: int = Field(default=defaults.PORT, ge=0, le=65535)
    step_timeout: float = Field(default=defaults.STEP_TIMEOUT, gt=0)
    max_sessions: int = Field(default=defaults.MAX_SESSIONS, ge=1)
    idle_timeout: float = Field(default=defaults.IDLE_TIMEOUT, gt=0)
    max_body: int = Field(default=defaults.MAX_BODY, ge=1024)
    tokens_file: Path | None = None

    @property
    def on_loopback(self) -> bool:
        """Only processes of this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
