"""A warm start: learn from an environment's expert, with as many mistakes mixed in as one likes.

Demonstrations become groups of one episode each, so that imitation goes through the same tree forward as everything else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from turnwise_agent.engines.forward import Backbone
from turnwise_agent.renderer import Renderer
from turnwise_agent.trajectory import Episode, Group, StopReason, Turn
from turnwise_envs import Action, Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import JsonObject
from turnwise_trainer.errors import ImitationError
from turnwise_trainer.tree import tree_logprobs, unique_tokens


@dataclass(frozen=True)
class ImitationSettings:
    """How a policy is made from demonstrations.

    Attributes:
        demos: number of demonstrations, from the tasks ``0 ... demos - 1`` of ``split``.
        noise: chance that a demonstrated action is a random admissible one instead of the expert's.
        epochs, lr, batch: passes, AdamW's peak rate, demonstrations per optimizer step.
    """

    demos: int = 200
    split: str = "train"
    noise: float = 0.0
    epochs: int = 4
    lr: float = 1e-3
    batch: int = 16
    seed: int = 0


async def demonstrate(
    env_class: type[Environment], settings: ImitationSettings, options: JsonObject
) -> list[LiveEpisode]:
    """Play the tasks with the expert. Raises ImitationError if the environment has none."""
    episodes = []
    for index in range(settings.demos):
        rng = random.Random(f"{settings.seed}/{index}")
        episode = await LiveEpisode.start(env_class, settings.split, index, options=options)
        while not episode.done:
            action = episode.env.expert_action()
            if action is None:
                raise ImitationError(f"environment {env_class.spec.id!r} has no expert to imitate")
            admissible = episode.observation.admissible_actions
            if settings.noise and admissible and rng.random() < settings.noise:
                action = Action(text=rng.choice(admissible))
            await episode.step(action)
        await episode.close()
        episodes.append(episode)
    return episodes


async def texts_of_play(env_class: type[Environment], split: str, episodes: int, options: JsonObject) -> Iterator[str]:
    """Texts to train a tokenizer on: observations and actions of random play."""
    texts: list[str] = []
    for index in range(episodes):
        rng = random.Random(f"texts/{index}")
        episode = await LiveEpisode.start(env_class, split, index, options=options)
        texts.append(episode.initial.text)
        while not episode.done:
            admissible = episode.observation.admissible_actions or [""]
            texts += admissible
            result = await episode.step(Action(text=rng.choice(admissible)))
            texts.append(result.observation.text)
        await episode.close()
    return iter(texts)


def as_group(episode: LiveEpisode, renderer: Renderer, env_class: type[Environment]) -> Group:
    """A demonstration as a group of one episode, as if the policy had drawn it."""
    turns: list[Turn] = []
    observation = episode.initial
    for record in episode.records:
        if record.action is None:
            break
        new_context = not turns or observation.context == "replace"
        prompt = (
            renderer.first(observation.messages, env_class.spec.tools)
            if new_context
            else renderer.following(observation.messages, turns[-1].action_ids[-1])
        )
        action_ids = renderer.action_ids(record.action.text)
        zeros = (0.0,) * len(action_ids)
        result = record.result
        turns.append(
            Turn(
                id=len(turns),
                parent=len(turns) - 1 if turns else None,
                index=len(turns),
                new_context=new_context,
                prompt_ids=prompt,
                action_ids=action_ids,
                logprobs=zeros,
                entropies=zeros,
                top_entropies=zeros,
                versions=(0,) * len(action_ids),
                action=record.action,
                observation=result.observation,
                reward=result.reward,
                terminated=result.terminated,
                truncated=result.truncated,
                info=result.info,
                log_hash=record.log_hash,
            )
        )
        observation = result.observation
    last = episode.records[-1].result
    stop = StopReason.TERMINATED if last.terminated else StopReason.MAX_TURNS
    end = Episode(0, len(turns) - 1, stop, 0.0, last.info, episode.log_hash)
    return Group(episode.task, episode.seed, episode.options, episode.initial, turns, [end])


def imitate(
    model: Any,
    demonstrations: Sequence[Group],
    settings: ImitationSettings,
    on_step: Callable[[int, int, float], None] | None = None,
) -> float:
    """Maximise the log-prob of the demonstrated action tokens. Returns the mean loss (nats a token) of the last epoch.

    ``on_step(done, total, loss)`` is called after every optimizer step.
    """
    backbone = Backbone(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.01)
    per_epoch = -(-len(demonstrations) // settings.batch)
    total = settings.epochs * per_epoch
    rng = np.random.default_rng(settings.seed)
    losses: list[float] = []
    model.train()
    for _ in range(settings.epochs):
        order = rng.permutation(len(demonstrations))
        for start in range(0, len(order), settings.batch):
            done = len(losses)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * min(1.0, (done + 1) / 10, 1.05 - done / total)
            batch = [demonstrations[int(i)] for i in order[start : start + settings.batch]]
            logp, _ = tree_logprobs(backbone, batch, temperature=1.0, batch_tokens=sum(map(_size, batch)) + 1)
            loss = -logp.mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss))
            if on_step is not None:
                on_step(done + 1, total, losses[-1])
    return sum(losses[-per_epoch:]) / per_epoch


def _size(group: Group) -> int:
    return unique_tokens([group])
