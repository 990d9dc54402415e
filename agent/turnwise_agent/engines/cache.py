"""The key-value cache of the local engine: a tree of token segments over one pool of token slots.

A :class:`Node` is a segment of a context; its parent chain is the context. Forks share their ancestors. Nodes live as
long as somebody holds a handle below them; their keys and values live in the pool until they are evicted, and can be
computed again from the tokens that a node always keeps.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from turnwise_agent.errors import EngineError


class Node:
    """A segment: prompt tokens (forwarded at once) or action tokens (forwarded one by one as they were drawn)."""

    __slots__ = (
        "__weakref__",
        "children",
        "computed",
        "end",
        "hidden",
        "kind",
        "parent",
        "pool",
        "slots",
        "tokens",
        "used",
    )

    def __init__(
        self, pool: TokenPool, parent: Node | None, tokens: tuple[int, ...], kind: Literal["prompt", "action"]
    ) -> None:
        self.pool = pool
        self.parent = parent
        self.tokens = tokens
        self.kind = kind
        self.end: int = (parent.end if parent else 0) + len(tokens)  # context length after this segment
        self.slots: Tensor | None = None if tokens else torch.empty(0, dtype=torch.long)
        self.hidden: Tensor | None = None  # [d], last hidden state of a prompt: what the first action token comes from
        self.children: WeakValueDictionary[tuple[int, ...], Node] = WeakValueDictionary()
        self.used = 0
        self.computed = False  # whether it ever went through the model
        pool.nodes[id(self)] = self

    @property
    def resident(self) -> bool:
        return self.slots is not None

    def chain(self) -> list[Node]:
        """This node and its ancestors, root first."""
        chain: list[Node] = []
        cursor: Node | None = self
        while cursor is not None:
            chain.append(cursor)
            cursor = cursor.parent
        return chain[::-1]

    def __del__(self) -> None:
        if self.slots is not None and len(self.slots):
            self.pool.returned.append(self.slots)


class TokenPool:
    """Slots for keys and values, one a token: ``storage[slot, 2 * layer (+1 for values), head, :]``.

    Slot 0 stays zero and pads gathers. Handles may be dropped on another thread than the one that computes, so freed
    slots go through a deque; nodes are listed with ``valuerefs``, which no other thread can disturb.
    """

    def __init__(self, layers: int, heads: int, head_dim: int, budget: int, dtype: torch.dtype, device: torch.device):
        self.budget = budget
        self.storage = torch.zeros(budget + 1, 2 * layers, heads, head_dim, dtype=dtype, device=device)
        self.nodes: WeakValueDictionary[int, Node] = WeakValueDictionary()
        self.returned: deque[Tensor] = deque()
        self.evicted_tokens = 0
        self._free = torch.arange(budget, 0, -1)
        self._free_count = budget
        self._clock = itertools.count(1)

    def touch(self, nodes: Iterable[Node]) -> None:
        now = next(self._clock)
        for node in nodes:
            node.used = now

    def allocate(self, count: int, keep: set[Node]) -> Tensor:
        """``count`` slots; the least recently used nodes outside ``keep`` lose theirs if need be.

        Raises:
            EngineError: what is in use at this moment fills the whole budget.
        """
        self._collect()
        if self._free_count < count:
            self._evict(count, keep)
        if self._free_count < count:
            raise EngineError(
                f"the cache budget of {self.budget} tokens is too small for one batch; raise cache_tokens "
                "or lower the number of episodes in flight"
            )
        self._free_count -= count
        return self._free[self._free_count : self._free_count + count].clone()

    def drop_all(self) -> None:
        """Forget all keys and values (new weights); nodes and their tokens stay."""
        for node in self._living():
            self._release(node)
        self._collect()

    def _living(self) -> list[Node]:
        return [node for reference in self.nodes.valuerefs() if (node := reference()) is not None]

    def _evict(self, count: int, keep: set[Node]) -> None:
        candidates = sorted(
            (node for node in self._living() if node.tokens and node.slots is not None and node not in keep),
            key=lambda node: node.used,
        )
        for node in candidates:
            if self._free_count >= count:
                return
            self.evicted_tokens += len(node.tokens)
            self._release(node)
            self._collect()

    def _release(self, node: Node) -> None:
        if node.slots is not None and len(node.slots):
            self.returned.append(node.slots)
            node.slots = None
        node.hidden = None

    def _collect(self) -> None:
        while self.returned:
            slots = self.returned.popleft()
            self._free[self._free_count : self._free_count + len(slots)] = slots
            self._free_count += len(slots)

    @property
    def used_tokens(self) -> int:
        """Tokens whose keys and values are held now. Safe from any thread."""
        return self.budget - self._free_count - sum(len(slots) for slots in list(self.returned))


def missing(leaf: Node) -> Iterator[Node]:
    """The nodes of a chain whose keys and values are not in the pool, root first."""
    return (node for node in leaf.chain() if not node.resident)
