"""Forests of turns with real token ids, and a model small enough to be run on every path by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from builders import Grower
from torch import Tensor

from turnwise_agent.trajectory import Group, Turn
from turnwise_trainer.models import make_tiny_model, make_tokenizer

VOCABULARY = 262


@cache
def tokenizer() -> Any:
    return make_tokenizer(["say a letter"], vocab_size=VOCABULARY)


def tiny_model(seed: int = 0, layers: int = 2) -> Any:
    """A random model whose distributions are far from uniform, so that mistakes show."""
    model = make_tiny_model(tokenizer(), hidden=16, layers=layers, heads=2, max_positions=256, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return model


class Forest(Grower):
    """Groups of real tokens: ``t = forest.turn(None, [1, 2], [3]); forest.episode(t, outcome=1.0)``."""

    def turn(
        self,
        parent: int | None,
        prompt: Sequence[int],
        action: Sequence[int],
        *,
        logprobs: Sequence[float] | None = None,
        new_context: bool = False,
    ) -> int:
        reported = {} if logprobs is None else {"logprobs": tuple(logprobs)}
        return self.grow(parent, action, prompt_ids=tuple(prompt), new_context=new_context, **reported)


def random_forest(seed: int, index: int = 0, members: int = 5, replace_context: bool = True) -> Group:
    """Episodes that start afresh or branch off anywhere (before an action: same prompt, another answer; or after one:
    same prompt or another), with equal answers now and then, and new contexts if wanted."""
    rng = np.random.default_rng([seed, index])

    def some(most: int) -> list[int]:
        return [int(number) for number in rng.integers(6, VOCABULARY, size=int(rng.integers(1, most + 1)))]

    forest = Forest(index)
    opening = some(5)
    for _ in range(members):
        leaf: int | None = None
        if forest.turns and rng.random() < 0.6:
            leaf = int(rng.integers(len(forest.turns)))
        for _ in range(int(rng.integers(1, 4))):
            siblings = [turn for turn in forest.turns if turn.parent == leaf]
            fresh = replace_context and leaf is not None and rng.random() < 0.2
            prompt: Sequence[int] = opening if leaf is None else some(3)
            if siblings and not fresh and rng.random() < 0.7:
                prompt, fresh = siblings[0].prompt_ids, leaf is not None and siblings[0].new_context
            answer = siblings[0].action_ids if siblings and rng.random() < 0.2 else some(3)
            leaf = forest.turn(leaf, prompt, answer, new_context=fresh)
        assert leaf is not None
        forest.episode(leaf, float(rng.integers(0, 2)))
    return forest.build()


def unshared(group: Group) -> Group:
    """The same episodes with every shared turn copied for each of them."""
    forest = Forest(group.task.index)
    for episode in group.episodes:
        leaf: int | None = None
        for turn in group.path(episode):
            leaf = forest.turn(
                leaf, turn.prompt_ids, turn.action_ids, logprobs=turn.logprobs, new_context=turn.new_context
            )
        assert leaf is not None
        forest.episode(leaf, episode.final_reward)
    return forest.build()


def with_logprobs(group: Group, logp_U: Sequence[float]) -> Group:
    """The group as an engine would have drawn it that reported these log-probs, in the order of its turns."""
    values = iter(logp_U)
    turns = [replace(turn, logprobs=tuple(next(values) for _ in turn.action_ids)) for turn in group.turns]
    return replace(group, turns=turns)


def contexts(path: Sequence[Turn]) -> Iterator[tuple[list[int], list[tuple[int, int, int]]]]:
    """What the policy read and wrote along a path, cut where its context was replaced: token ids, and of every action token
    its place in them, its turn's id and its offset in the turn."""
    ids: list[int] = []
    actions: list[tuple[int, int, int]] = []
    for turn in path:
        if turn.new_context and ids:
            yield ids, actions
            ids, actions = [], []
        ids = [*ids, *turn.prompt_ids]
        actions = [*actions, *((len(ids) + offset, turn.id, offset) for offset in range(len(turn.action_ids)))]
        ids = [*ids, *turn.action_ids]
    yield ids, actions


def path_by_path(model: Any, groups: Sequence[Group], temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies [U] by an ordinary forward of every path on its own."""
    logps: dict[tuple[int, int, int], Tensor] = {}
    entropies: dict[tuple[int, int, int], Tensor] = {}
    for number, group in enumerate(groups):
        for path in group.paths():
            for ids, actions in contexts(path):
                rows = (model(input_ids=torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
                for place, turn, offset in actions:
                    logps.setdefault((number, turn, offset), rows[place - 1, ids[place]])
                    entropies.setdefault((number, turn, offset), -(rows[place - 1].exp() * rows[place - 1]).sum())
    order = sorted(logps)
    return torch.stack([logps[key] for key in order]), torch.stack([entropies[key] for key in order])
