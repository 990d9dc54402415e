"""Forward a forest of turns once per unique token, with gradients, and read off the log-probs of the action tokens.

A *chain* is a maximal run of tokens without a branching; its context is the chain it hangs on, and that one's. Chains are
forwarded level by level: those without a parent first, then their children, which attend to the keys and values that their
ancestors left. Gradients flow back through those. For a group of independent episodes this means: the prompt once, then
every episode after it; for one episode it is the ordinary forward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from turnwise_agent.engines.forward import Backbone, JoiningPast
from turnwise_agent.trajectory import Group

#: Rows of a batch are padded to the longest; a row shorter than this fraction of it goes into the next batch.
_SHORTEST = 0.7


@dataclass(eq=False)
class Chain:
    """Tokens, where they hang, and which of them are actions.

    Attributes:
        parent: the chain that the context continues, or None.
        start: length of the context before the first token.
        tokens: ids.
        actions: (offset in ``tokens``, index among the unique action tokens) of every action token.
    """

    parent: Chain | None
    start: int
    tokens: list[int] = field(default_factory=list)
    actions: list[tuple[int, int]] = field(default_factory=list)
    first: int = -1  # index of the first token in the flat store of keys, values and hidden states

    @property
    def level(self) -> int:
        return 0 if self.parent is None else self.parent.level + 1

    def context(self) -> list[int]:
        """Store indices of all tokens before this chain."""
        spans: list[range] = []
        cursor = self.parent
        while cursor is not None:
            spans.append(range(cursor.first, cursor.first + len(cursor.tokens)))
            cursor = cursor.parent
        return [index for span in reversed(spans) for index in span]


def chains_of(groups: Sequence[Group]) -> list[Chain]:
    """All chains of some groups, parents before children. Unique action tokens are numbered group by group, turn by turn,
    as in :class:`~turnwise_trainer.view.BatchView`."""
    chains: list[Chain] = []
    base = 0
    for group in groups:
        first_token = []
        for turn in group.turns:
            first_token.append(base)
            base += len(turn.action_ids)
        # Siblings that read the same prompt share it: (context parent, prompt) -> turns.
        readers: dict[int | None, dict[tuple[int, ...], list[int]]] = defaultdict(lambda: defaultdict(list))
        for turn in group.turns:
            readers[None if turn.new_context else turn.parent][turn.prompt_ids].append(turn.id)
        # Work items: a chain to continue (or None to begin a root) with a prompt and the turns that answer it.
        work: list[tuple[Chain | None, bool, tuple[int, ...], list[int]]] = [
            (None, False, prompt, turns) for prompt, turns in readers[None].items()
        ]
        while work:
            above, extend, prompt, turns = work.pop()
            chain = above if extend and above is not None else _begin(chains, above)
            chain.tokens += prompt
            for number in turns:
                own = chain if len(turns) == 1 else _begin(chains, chain)
                ids = group.turns[number].action_ids
                own.actions += [(len(own.tokens) + i, first_token[number] + i) for i in range(len(ids))]
                own.tokens += ids
                following = readers.get(number, {})
                work += [(own, len(following) == 1, *item) for item in following.items()]
    return chains


def _begin(chains: list[Chain], parent: Chain | None) -> Chain:
    chain = Chain(parent, 0 if parent is None else parent.start + len(parent.tokens))
    chains.append(chain)
    return chain


def unique_tokens(groups: Sequence[Group]) -> int:
    """How many tokens :func:`tree_logprobs` forwards for these groups."""
    return sum(len(chain.tokens) for chain in chains_of(groups))


def tree_logprobs(
    backbone: Backbone, groups: Sequence[Group], temperature: float, *, entropy: bool = False, batch_tokens: int = 8192
) -> tuple[Tensor, Tensor | None]:
    """Log-probs ``[U]`` (nats, float32) of all unique action tokens, and the entropies ``[U]`` if asked for.

    Args:
        temperature: logits are divided by it, as the engine did when it drew.
        batch_tokens: most tokens of one forward pass, padding included (all passes share one graph).
    """
    chains = chains_of(groups)
    device = backbone.device
    stores: list[tuple[Tensor, Tensor]] | None = None  # per layer: keys and values [H, tokens so far, D]
    hidden_parts: list[Tensor] = []
    placed = 0
    for level in range(max(chain.level for chain in chains) + 1):
        of_level = sorted((c for c in chains if c.level == level), key=lambda c: -len(c.tokens))
        fresh: list[list[tuple[Tensor, Tensor]]] = []
        for batch in _batches(of_level, batch_tokens):
            hidden, new = _forward(backbone, batch, stores)
            keep = _valid(batch).to(device)
            hidden_parts.append(hidden[keep])
            fresh.append([(_flat(key, keep), _flat(value, keep)) for key, value in new])
            for chain in batch:
                chain.first = placed
                placed += len(chain.tokens)
        stores = _joined(stores, fresh)
    hidden_all = torch.cat(hidden_parts)
    # The token before an action token predicts it: in the chain itself, or the parent's last.
    order = sorted(
        (u, _predictor(chain, offset), chain.tokens[offset]) for chain in chains for offset, u in chain.actions
    )
    predictors = torch.tensor([predictor for _, predictor, _ in order], device=device)
    targets = torch.tensor([token for _, _, token in order], device=device)
    logps = (backbone.logits(hidden_all[predictors]) / temperature).log_softmax(-1)
    entropies = -(logps.exp() * logps).sum(-1) if entropy else None
    return logps.gather(-1, targets[:, None])[:, 0], entropies


def _predictor(chain: Chain, offset: int) -> int:
    if offset > 0:
        return chain.first + offset - 1
    assert chain.parent is not None  # an episode starts with a prompt
    return chain.parent.first + len(chain.parent.tokens) - 1


def _batches(chains: list[Chain], batch_tokens: int) -> list[list[Chain]]:
    """Chains, longest first, in batches of similar length."""
    batches: list[list[Chain]] = []
    for chain in chains:
        if batches:
            longest = len(batches[-1][0].tokens)
            fits = (len(batches[-1]) + 1) * longest <= batch_tokens
            if fits and len(chain.tokens) >= _SHORTEST * longest:
                batches[-1].append(chain)
                continue
        batches.append([chain])
    return batches


def _forward(
    backbone: Backbone, batch: list[Chain], stores: list[tuple[Tensor, Tensor]] | None
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Hidden states ``[B, Q, d]`` and each layer's new keys and values ``[B, H, Q, D]``."""
    device = backbone.device
    width = len(batch[0].tokens)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    for row, chain in enumerate(batch):
        ids[row, : len(chain.tokens)] = torch.tensor(chain.tokens)
    starts = torch.tensor([chain.start for chain in batch])
    positions = (starts[:, None] + torch.arange(width)).to(device)
    mask = torch.ones(width, width, dtype=torch.bool).tril()[None].expand(len(batch), -1, -1)
    earlier = None
    if stores is not None:
        contexts = [chain.context() for chain in batch]
        longest = max(len(context) for context in contexts)
        index = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, context in enumerate(contexts):
            index[row, : len(context)] = torch.tensor(context)
        seen = torch.arange(longest) < starts[:, None]
        mask = torch.cat([seen[:, None].expand(-1, width, -1), mask], dim=2)
        flat = index.flatten().to(device)
        earlier = [(_rows(keys, flat, len(batch)), _rows(values, flat, len(batch))) for keys, values in stores]
    past = JoiningPast(earlier)
    hidden = backbone.hidden(ids.to(device), positions, mask[:, None].to(device), past)
    return hidden, past.new


def _rows(store: Tensor, flat: Tensor, batch: int) -> Tensor:
    """``[H, tokens, D]`` gathered to ``[B, H, K, D]``."""
    picked = store.index_select(1, flat)
    return picked.view(picked.shape[0], batch, -1, picked.shape[2]).transpose(0, 1)


def _valid(batch: list[Chain]) -> Tensor:
    lengths = torch.tensor([len(chain.tokens) for chain in batch])
    return torch.arange(int(lengths.max())) < lengths[:, None]


def _flat(states: Tensor, keep: Tensor) -> Tensor:
    """``[B, H, Q, D]`` without padding: ``[H, tokens, D]``."""
    return states.transpose(1, 2)[keep].transpose(0, 1)


def _joined(
    stores: list[tuple[Tensor, Tensor]] | None, fresh: list[list[tuple[Tensor, Tensor]]]
) -> list[tuple[Tensor, Tensor]]:
    layers = len(fresh[0])
    parts = ([stores] if stores is not None else []) + fresh
    return [
        (torch.cat([part[layer][0] for part in parts], dim=1), torch.cat([part[layer][1] for part in parts], dim=1))
        for layer in range(layers)
    ]
