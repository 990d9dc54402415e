"""Draw one token a row and step, each row from its own random stream, and keep what the learner needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from turnwise_agent.engines.base import Sampling


@dataclass
class Drawn:
    """One row's tokens so far. ``reason`` is None while it goes on."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    top_entropies: list[float] = field(default_factory=list)
    reason: Literal["stop", "length"] | None = None


class BatchSampler:
    """The state of drawing for a batch whose finished rows may be left out of later steps.

    Attributes:
        rows: what was drawn, for every row of the original batch.
        active: the original rows that logits are given for, in order.
    """

    def __init__(self, samplings: Sequence[Sampling], device: torch.device) -> None:
        self.samplings = samplings
        self.rows = [Drawn() for _ in samplings]
        self.active = list(range(len(samplings)))
        most = max(sampling.max_tokens for sampling in samplings)
        self._step = 0
        self._greedy = torch.tensor([s.temperature == 0 for s in samplings], device=device)
        self._scale = torch.tensor([1.0 / (s.temperature or 1.0) for s in samplings], device=device)[:, None]
        self._top_k = torch.tensor([s.top_entropy_k for s in samplings], device=device)[:, None]
        self._uniforms = torch.tensor(
            np.stack([np.random.Generator(np.random.Philox(s.seed)).random(most) for s in samplings]), device=device
        )

    @property
    def live(self) -> int:
        """Number of rows that are not finished."""
        return sum(row.reason is None for row in self.rows)

    def draw(self, logits: Tensor) -> Tensor:
        """``[active, V] -> [active]`` token ids; inverse-CDF sampling with one uniform a row."""
        logps = (logits * self._scale).log_softmax(-1)
        probs = logps.exp()
        cdf = probs.double().cumsum(-1)
        target = self._uniforms[:, self._step, None] * cdf[:, -1:]
        sampled = torch.searchsorted(cdf, target, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
        ids = torch.where(self._greedy, logits.argmax(-1), sampled)
        contributions = -(probs * logps)
        k = self._top_k.clamp(max=logits.shape[1])
        top = contributions.gather(-1, probs.topk(int(k.max()), dim=-1).indices).cumsum(-1).gather(-1, k - 1)
        self._step += 1
        columns = (
            self.active,
            ids.tolist(),
            logps.gather(-1, ids[:, None])[:, 0].tolist(),
            contributions.sum(-1).tolist(),
            top[:, 0].tolist(),
        )
        for row, token, logprob, entropy, top_entropy in zip(*columns, strict=True):
            drawn, sampling = self.rows[row], self.samplings[row]
            if drawn.reason is not None:
                continue
            drawn.token_ids.append(token)
            drawn.logprobs.append(logprob)
            drawn.entropies.append(entropy)
            drawn.top_entropies.append(top_entropy)
            if token in sampling.stop_ids:
                drawn.reason = "stop"
            elif self._step == sampling.max_tokens:
                drawn.reason = "length"
        return ids

    def drop_finished(self) -> Tensor:
        """Leave finished rows out from now on; returns the positions (among the active rows so far) that stay."""
        stay = [place for place, row in enumerate(self.active) if self.rows[row].reason is None]
        self.active = [self.active[place] for place in stay]
        index = torch.tensor(stay, device=self._scale.device)
        self._greedy, self._scale, self._top_k = self._greedy[index], self._scale[index], self._top_k[index]
        self._uniforms = self._uniforms[index]
        return index
