"""A warm start: learn from an environment's expert, with as many mistakes mixed in as one likes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnwise_agent.renderer import Renderer
from turnwise_envs import Action, Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import JsonObject
from turnwise_trainer.errors import ImitationError
from turnwise_trainer.models import load_model, make_tiny_model, make_tokenizer, save_model
from turnwise_trainer.muon import Muon
from turnwise_trainer.task_pool import Where, matches


@dataclass(frozen=True)
class ImitationSettings:
    """How a policy is made from demonstrations.

    Attributes:
        demos: number of demonstrations, from the first tasks of ``split`` that match ``where``.
        noise: chance that a demonstrated action is a slip instead of the expert's: half of them random admissible
            actions, half of them something that the expert said in an earlier demonstration, which mostly fails here.
            Slips are not learned, only how the expert goes on after them (Laskey et al. 2017, DART: a supervisor with
            injected noise shows how one recovers).
        epochs, lr, batch: passes, AdamW's peak rate (Muon's is five times it), demonstrations per optimizer step. Steps teach
            more than large batches do.
        observation_weight: weight of predicting what the environment says. It teaches a new model to copy names long
            before the few action tokens would.
        hidden, layers: size of a new model.
    """

    demos: int = 200
    split: str = "train"
    where: Where = field(default_factory=dict)
    noise: float = 0.0
    epochs: int = 4
    lr: float = 2e-3
    batch: int = 4
    observation_weight: float = 0.3
    hidden: int = 128
    layers: int = 3
    seed: int = 0


#: Muon's rate for one of AdamW's: its steps are all equally long, AdamW's first ones are the longest.
MUON_RATE = 5.0
#: Episodes of random play whose texts a new tokenizer is trained on.
_TOKENIZER_EPISODES = 200


async def make_policy(
    env_class: type[Environment],
    settings: ImitationSettings,
    out: Path,
    *,
    start_from: Path | None = None,
    options: JsonObject | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> float:
    """Demonstrate, imitate, and write a checkpoint to ``out``. Returns the loss, as :func:`imitate` does.

    Raises:
        ImitationError: the environment has no expert.
        ModelError: ``start_from`` cannot be loaded.
    """
    options = options or {}
    recordings = await demonstrate(env_class, settings, options)
    if start_from is not None:
        model, tokenizer = load_model(start_from)
    else:
        tokenizer = make_tokenizer(await texts_of_play(env_class, settings.split, _TOKENIZER_EPISODES, options))
        model = make_tiny_model(tokenizer, hidden=settings.hidden, layers=settings.layers, seed=settings.seed)
    renderer = Renderer(tokenizer)
    loss = imitate(model, [Demonstration.of(recording, renderer) for recording in recordings], settings, on_step)
    save_model(model, tokenizer, out)
    return loss


@dataclass(frozen=True)
class Recording:
    """What a demonstrator did: a whole episode, and the numbers (from 0) of the turns that were slips."""

    episode: LiveEpisode
    slips: frozenset[int] = frozenset()


async def demonstrate(
    env_class: type[Environment], settings: ImitationSettings, options: JsonObject
) -> list[Recording]:
    """Play the tasks with the expert. Raises ImitationError if the environment has none."""
    recordings = []
    said: list[Action] = []  # by the expert, so far
    for index in _task_indices(env_class, settings):
        rng = random.Random(f"{settings.seed}/{index}")
        episode = await LiveEpisode.start(env_class, settings.split, index, options=options)
        slips: set[int] = set()
        while not episode.done:
            action = episode.env.expert_action()
            if action is None and episode.records:
                break  # the expert believes that it is done
            if action is None:
                raise ImitationError(f"environment {env_class.spec.id!r} has no expert to imitate")
            said.append(action)
            if settings.noise and rng.random() < settings.noise:
                slips.add(len(episode.records))
                admissible = episode.observation.admissible_actions
                stray = not admissible or rng.random() < 0.5
                action = rng.choice(said) if stray else Action(text=rng.choice(admissible or []))
            await episode.step(action)
        await episode.close()
        recordings.append(Recording(episode, frozenset(slips)))
    return recordings


def _task_indices(env_class: type[Environment], settings: ImitationSettings) -> list[int]:
    size = env_class.tasks.size(settings.split)
    candidates = itertools.count() if size is None else range(size)
    found = (i for i in candidates if matches(env_class.tasks.get(settings.split, i), settings.where))
    indices = list(itertools.islice(found, settings.demos))
    if len(indices) < settings.demos:
        raise ImitationError(
            f"split {settings.split!r} of {env_class.spec.id!r} has only {len(indices)} such tasks, not {settings.demos}"
        )
    return indices


async def texts_of_play(env_class: type[Environment], split: str, episodes: int, options: JsonObject) -> list[str]:
    """Texts to train a tokenizer on: observations and actions of random play, and what the expert would say."""
    texts: list[str] = []
    for index in range(episodes):
        rng = random.Random(f"texts/{index}")
        episode = await LiveEpisode.start(env_class, split, index, options=options)
        texts.append(episode.initial.text)
        while not episode.done:
            admissible = episode.observation.admissible_actions or [""]
            expert = episode.env.expert_action()
            texts += [*admissible, expert.text] if expert else admissible
            result = await episode.step(Action(text=rng.choice(admissible)))
            texts.append(result.observation.text)
        await episode.close()
    return texts


class Kind(IntEnum):
    """What a token of a demonstration is to the one who learns from it."""

    IGNORED = -1
    OBSERVATION = 0
    ACTION = 1


@dataclass(frozen=True)
class Demonstration:
    """Token ids of a whole episode, and what each of them is: said by the environment, by the expert, or a slip."""

    ids: tuple[int, ...]
    kinds: tuple[Kind, ...]

    @classmethod
    def of(cls, recording: Recording, renderer: Renderer) -> Demonstration:
        """As the policy would have seen it. An episode that replaces its context is cut before that."""
        episode = recording.episode
        ids: list[int] = []
        kinds: list[Kind] = []
        observation = episode.initial
        for turn, record in enumerate(episode.records):
            if record.action is None or (ids and observation.context == "replace"):
                break
            prompt = (
                renderer.following(observation.messages, ids[-1])
                if ids
                else renderer.first(observation.messages, episode.env.spec.tools)
            )
            action = renderer.action_ids(record.action.text)
            ids += [*prompt, *action]
            said = Kind.IGNORED if turn in recording.slips else Kind.ACTION
            kinds += [Kind.OBSERVATION] * len(prompt) + [said] * len(action)
            observation = record.result.observation
        return cls(tuple(ids), tuple(kinds))


def imitate(
    model: Any,
    demonstrations: Sequence[Demonstration],
    settings: ImitationSettings,
    on_step: Callable[[int, int, float], None] | None = None,
) -> float:
    """Maximise the log-prob of the expert's actions, and a little of what the environment says.

    Returns the mean loss (nats an action token) of the last epoch. ``on_step(done, total, loss)`` is called after every
    optimizer step.
    """
    optimizers = _optimizers(model, settings.lr)
    per_epoch = -(-len(demonstrations) // settings.batch)
    total = settings.epochs * per_epoch
    rng = np.random.default_rng(settings.seed)
    losses: list[float] = []
    model.train()
    for _ in range(settings.epochs):
        for batch in _batches(demonstrations, settings.batch, rng):
            done = len(losses)
            rate = min(1.0, (done + 1) / 20, 1.05 - done / total)
            for optimizer, lr in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr * rate
                optimizer.zero_grad(set_to_none=True)
            action_loss, other_loss = _losses(model, batch)
            (action_loss + settings.observation_weight * other_loss).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, _ in optimizers:
                optimizer.step()
            losses.append(float(action_loss.detach()))
            if on_step is not None:
                on_step(done + 1, total, losses[-1])
    return sum(losses[-per_epoch:]) / per_epoch


def _optimizers(model: Any, lr: float) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the layers, AdamW for embeddings, output head and vectors; each with its peak rate."""
    ends = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
    inner = [p for p in model.parameters() if p.ndim == 2 and id(p) not in ends]
    others = [p for p in model.parameters() if p.ndim != 2 or id(p) in ends]
    adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    return [(adamw, lr), (Muon(inner, MUON_RATE * lr), MUON_RATE * lr)]


def _batches(
    demonstrations: Sequence[Demonstration], size: int, rng: np.random.Generator
) -> Iterator[list[Demonstration]]:
    """All demonstrations once, in random batches of similar length (padding is computed, too)."""
    order = rng.permutation(len(demonstrations))
    batches: list[list[Demonstration]] = []
    for start in range(0, len(order), 8 * size):
        pool = sorted((demonstrations[int(i)] for i in order[start : start + 8 * size]), key=lambda d: len(d.ids))
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    for number in rng.permutation(len(batches)):
        yield batches[int(number)]


def _losses(model: Any, batch: Sequence[Demonstration]) -> tuple[Tensor, Tensor]:
    """Mean negative log-prob (nats) of action tokens, and of all other tokens."""
    width = max(len(demonstration.ids) for demonstration in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    kind = torch.full((len(batch), width), int(Kind.IGNORED))
    for row, demonstration in enumerate(batch):
        ids[row, : len(demonstration.ids)] = torch.tensor(demonstration.ids)
        kind[row, : len(demonstration.ids)] = torch.tensor(demonstration.kinds)
    device = next(model.parameters()).device
    ids, kind = ids.to(device), kind[:, 1:].to(device)
    logits = model(input_ids=ids).logits[:, :-1].float()  # padding is on the right: causal attention never sees it
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    kind = kind.flatten()
    return nll[kind == Kind.ACTION].mean(), nll[kind == Kind.OBSERVATION].mean()
