"""The first contact with the environment servers: is somebody there, and do they have what was asked for?"""

from __future__ import annotations

from collections.abc import Sequence

from turnwise_agent.client import TurnwiseClient
from turnwise_envs.types import EnvSpec
from turnwise_trainer.errors import ConfigError
from turnwise_trainer.settings import did_you_mean

#: In the middle of a run a client waits for minutes, since there is something to lose. Before it, a server that does not
#: answer was not started or has another address, and its user should hear so soon.
_PATIENCE_S = 8.0


async def look_up(urls: Sequence[str], env: str) -> EnvSpec:
    """The environment as its servers describe it.

    Raises:
        ServerUnreachable: none of them answered within seconds.
        InvalidRequest: they do not serve it.
    """
    async with TurnwiseClient(list(urls), patience=_PATIENCE_S) as client:
        return await client.spec(env)


def split_size(spec: EnvSpec, split: str, *, setting: str) -> int | None:
    """Number of tasks of a split, None if it is unbounded. Raises ConfigError, naming the setting, if there is none."""
    sizes = {known.name: known.size for known in spec.splits}
    if split not in sizes:
        raise ConfigError(f"{setting}: environment {spec.id!r} has no split {split!r}{did_you_mean(split, sizes)}")
    return sizes[split]


def check_episodes(spec: EnvSpec, split: str, episodes: int, *, setting: str) -> None:
    """Raises ConfigError, naming the setting, if a split has fewer tasks than are to be played once each."""
    size = split_size(spec, split, setting=setting)
    if size is not None and episodes > size:
        raise ConfigError(f"{setting}: {episodes} episodes, but split {split!r} of {spec.id!r} has only {size} tasks")
