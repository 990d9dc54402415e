"""An episode in this process, from a name as a user writes it to its end."""

from __future__ import annotations

import asyncio

from turnwise_envs import registry
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Action, StepResult


def play(name, /, said=None, *, index=0, seed=0, split="train", **arguments) -> tuple[LiveEpisode, list[StepResult]]:
    """An episode with these actions, or the expert's."""

    async def run():
        episode = await LiveEpisode.start(registry.load(name, arguments), split, index, seed)
        try:
            for text in said or iter(lambda: None, 0):
                action = Action(text=text) if said else episode.env.expert_action()
                if action is None or episode.done:
                    break
                await episode.step(action)
        finally:
            await episode.close()
        return episode, [record.result for record in episode.records]

    return asyncio.run(run())
