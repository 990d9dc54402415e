"""A transformers causal LM in this process: batches whatever is waiting and keeps every path's cache between turns.

A request's context is a chain of :class:`~turnwise_agent.engines.cache.Node`; a new turn forwards only its new tokens, a
fork shares its ancestors, and members of a group share their prompt. One worker task feeds batches to one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from turnwise_agent.engines.base import Generation, Sampling
from turnwise_agent.engines.batches import Filling, Request, fail, is_full, next_batch, of_similar_length
from turnwise_agent.engines.cache import Node, TokenPool, missing
from turnwise_agent.engines.forward import Backbone, WritingPast
from turnwise_agent.engines.sampler import BatchSampler
from turnwise_agent.errors import EngineError

#: A batch starts when it is full, or when nobody has joined it for this long.
BATCH_WINDOW_S = 0.004


@dataclass(frozen=True, slots=True)
class Handle:
    """A context that ends with an action. Its last token was drawn but has not been through the model yet."""

    node: Node
    pending: tuple[int, ...]


@dataclass
class EngineStats:
    """Counters since the engine was made.

    ``forwarded_tokens`` went through the model for somebody; ``recomputed_tokens`` (a part of them) had been there before
    and were evicted; ``padding_tokens`` were computed only because batches are rectangular. ``seconds`` were spent computing.
    """

    batches: int = 0
    seconds: float = 0.0
    forwarded_tokens: int = 0
    recomputed_tokens: int = 0
    padding_tokens: int = 0
    sampled_tokens: int = 0
    scored_tokens: int = 0


class LocalEngine:
    """An :class:`~turnwise_agent.engines.base.Engine` on a Hugging Face model; the engine owns its copy of the weights.

    Args:
        model: a causal LM, already on its device; switched to eval mode.
        cache_tokens: how many tokens' keys and values to keep; the least recently used are evicted and, when needed
            again, computed again (counted in ``stats.recomputed_tokens``).
        max_batch: most requests in one batch.
        deterministic: every request is computed alone and in the same steps, so that results do not depend on what
            else is in flight (float results differ in their last bits with the batch shape). Several times slower.

    Raises:
        EngineError: the architecture is not supported.
    """

    can_probe = True

    def __init__(
        self, model: Any, *, cache_tokens: int = 262_144, max_batch: int = 64, deterministic: bool = False
    ) -> None:
        self.backbone = Backbone(model.eval().requires_grad_(False))
        self.stats = EngineStats()
        self.version = 0
        self._max_batch = 1 if deterministic else max_batch
        self._deterministic = deterministic
        self._pool = TokenPool(
            self.backbone.layers,
            self.backbone.kv_heads,
            self.backbone.head_dim,
            cache_tokens,
            self.backbone.dtype,
            self.backbone.device,
        )
        # Only one buffer is in use at a time; touching fresh memory for each would cost more than the copy into it.
        self._scratch: Tensor | None = None
        self._root = Node(self._pool, None, (), "prompt")
        self._waiting: list[Request] = []
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="turnwise-engine")

    @property
    def vocab_size(self) -> int:
        return int(self.backbone.config.vocab_size)

    @property
    def evicted_tokens(self) -> int:
        return self._pool.evicted_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values are held at the moment."""
        return self._pool.used_tokens

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, parent: object | None = None) -> Generation:
        node = self._prompt_node(prompt_ids, parent, extra=sampling.max_tokens)
        return await self._submit(node, sampling, (), 0)  # type: ignore[no-any-return]

    async def score(
        self,
        prompt_ids: Sequence[int],
        continuation_ids: Sequence[int],
        parent: object | None = None,
        *,
        given: int = 0,
    ) -> tuple[float, ...]:
        if not 0 <= given < len(continuation_ids):
            raise EngineError(f"nothing to score: {given} of {len(continuation_ids)} continuation tokens are given")
        self._check_ids(continuation_ids)
        node = self._prompt_node(prompt_ids, parent, extra=len(continuation_ids))
        return await self._submit(node, None, tuple(continuation_ids), given)  # type: ignore[no-any-return]

    async def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load, weights, version)

    async def close(self) -> None:
        """Whoever still waits gets an EngineError."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        fail(self._waiting, EngineError("the engine was closed"))
        await asyncio.to_thread(self._thread.shutdown)

    # -- the queue ----------------------------------------------------------------------------------------------------

    def _prompt_node(self, prompt_ids: Sequence[int], parent: object | None, extra: int) -> Node:
        if parent is not None and not isinstance(parent, Handle):
            raise EngineError(f"parent must be the handle of an earlier generation, not {type(parent).__name__}")
        above, pending = (parent.node, parent.pending) if parent else (self._root, ())
        tokens = pending + tuple(prompt_ids)
        if not tokens:
            raise EngineError("the prompt is empty: give at least one token")
        self._check_ids(tokens)
        length = above.end + len(tokens) + extra
        if length > self.backbone.max_positions:
            raise EngineError(
                f"context of {length} tokens exceeds the model's {self.backbone.max_positions} positions; "
                "lower max_context_tokens"
            )
        node = above.children.get(tokens)
        if node is None:
            node = Node(self._pool, above, tokens, "prompt")
            above.children[tokens] = node
        return node

    def _check_ids(self, tokens: Sequence[int]) -> None:
        # On a GPU an id outside the embedding would poison the whole process.
        if min(tokens) < 0 or max(tokens) >= self.vocab_size:
            raise EngineError(f"token ids go from 0 to {self.vocab_size - 1}, not {min(tokens)} to {max(tokens)}")

    async def _submit(self, node: Node, sampling: Sampling | None, continuation: tuple[int, ...], given: int) -> Any:
        if self._closed:
            raise EngineError("the engine was closed")
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="turnwise-engine")
        request = Request(node, sampling, continuation, given, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._wake.set()
        return await request.future

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            await self._gather_requests()
            await self._serve_batch()

    async def _gather_requests(self) -> None:
        """Wait while requests keep coming: a small model's batch of 10 takes almost as long as one of 60."""
        seen = 0
        while seen < len(self._waiting) and not is_full(self._waiting, self._max_batch):
            seen = len(self._waiting)
            await asyncio.sleep(BATCH_WINDOW_S)

    async def _serve_batch(self) -> None:
        """A frame of its own: while the worker waits for the next batch, nothing may hold on to this one's nodes."""
        batch, self._waiting = next_batch(self._waiting, self._max_batch)
        if not self._waiting:
            self._wake.clear()
        batch = [request for request in batch if not request.future.cancelled()]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, batch)
        except asyncio.CancelledError:
            fail(batch, EngineError("the engine was closed"))
            raise
        except Exception as error:
            fail(batch, error)
            return
        for request, answer in zip(batch, answers, strict=True):
            if not request.future.done():
                request.future.set_result(answer)

    # -- on the engine's thread -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor], version: int) -> None:
        own = self.backbone.model.state_dict()
        odd = sorted(own.keys() ^ weights.keys()) or [
            n for n, tensor in weights.items() if tensor.shape != own[n].shape
        ]
        if odd:
            raise EngineError(f"published weights do not fit the model: {', '.join(odd[:3])}")
        for name, tensor in weights.items():
            own[name].copy_(tensor)
        self.version = version
        self._pool.drop_all()

    @torch.inference_mode()
    def _run(self, batch: list[Request]) -> list[Any]:
        if not batch:
            return []
        began = time.perf_counter()
        self.stats.batches += 1
        chains = [request.node.chain() for request in batch]
        keep = {node for chain in chains for node in chain}
        self._pool.touch(keep)
        self._prefill(batch, keep)
        draws = [i for i, request in enumerate(batch) if not request.is_probe]
        probes = [i for i, request in enumerate(batch) if request.is_probe]
        answers: list[Any] = [None] * len(batch)
        if draws:
            for i, answer in zip(draws, self._draw([batch[i] for i in draws], keep), strict=True):
                answers[i] = answer
        if probes:
            for i, scores in zip(probes, self._score([batch[i] for i in probes]), strict=True):
                answers[i] = scores
        self.stats.seconds += time.perf_counter() - began
        return answers

    def _prefill(self, batch: list[Request], keep: set[Node]) -> None:
        """Bring every node of every chain into the pool, ancestors first, each once.

        A prompt takes one of the probes that wait for it along: the forward pass is then longer by a few tokens, instead
        of a second pass that would gather the whole context again. What comes after the prompt is not stored.
        """
        riders: dict[Node, Request] = {}
        if not self._deterministic:  # there a prompt is computed in the same shape with and without probes
            for request in batch:
                if request.is_probe:
                    riders.setdefault(request.node, request)
        while True:
            wave = list({id(node): node for request in batch for node in list(missing(request.node))[:1]}.values())
            if not wave:
                return
            self.stats.recomputed_tokens += sum(len(node.tokens) for node in wave if node.computed)
            if self._deterministic:
                for node in wave:
                    # In the same steps as the first time: prompts at once, action tokens one by one.
                    self._fill([Filling(node)], keep, one_by_one=node.kind == "action")
            else:
                for alike in of_similar_length([Filling(node, riders.get(node)) for node in wave], self._max_batch):
                    self._fill(alike, keep, one_by_one=False)

    def _fill(self, fillings: list[Filling], keep: set[Node], *, one_by_one: bool) -> None:
        nodes = [filling.node for filling in fillings]
        hidden, buffer, offset = self._extend(
            [node.parent for node in nodes if node.parent is not None],
            [filling.tokens for filling in fillings],
            one_by_one=one_by_one,
        )
        self._store(nodes, keep, buffer, list(range(len(nodes))), offset)
        for row, (node, rider) in enumerate((filling.node, filling.rider) for filling in fillings):
            last = len(node.tokens) - 1
            node.hidden = hidden[row, last].clone()
            if rider is not None:
                rider.hidden = hidden[row, last + rider.given : last + len(rider.continuation)].clone()

    def _extend(
        self, parents: Sequence[Node], new: Sequence[tuple[int, ...]], *, one_by_one: bool = False
    ) -> tuple[Tensor, Tensor, int]:
        """Forward ``new`` tokens after resident parents: hidden ``[B, Q, d]``, buffer, and the column of the first."""
        backbone, device = self.backbone, self.backbone.device
        width = max(len(tokens) for tokens in new)
        buffer, context, offset = self._gather(parents, extra=width)
        ids = torch.zeros(len(new), width, dtype=torch.long)
        for row, tokens in enumerate(new):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        ids = ids.to(device)
        positions = context[:, None] + torch.arange(width, device=device)
        mask = torch.zeros(len(new), 1, width, offset + width, dtype=torch.bool, device=device)
        mask[:, 0, :, :offset] = (torch.arange(offset, device=device) < context[:, None])[:, None]
        mask[:, 0, :, offset:] = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        past = WritingPast(buffer, offset)
        if one_by_one:
            parts = []
            for q in range(width):
                step_mask = mask[:, :, q : q + 1, : offset + q + 1]
                parts.append(backbone.hidden(ids[:, q : q + 1], positions[:, q : q + 1], step_mask, past))
                past.start += 1
            hidden = torch.cat(parts, dim=1)
        else:
            hidden = backbone.hidden(ids, positions, mask, past)
        live = sum(len(tokens) for tokens in new)
        self.stats.forwarded_tokens += live
        self.stats.padding_tokens += ids.numel() - live
        return hidden, buffer, offset

    def _gather(self, leaves: Sequence[Node], extra: int) -> tuple[Tensor, Tensor, int]:
        """A buffer ``[B, capacity, 2 * layers, H, D]`` that starts with each leaf's context; lengths ``[B]``; its width."""
        pool = self._pool
        slots = [torch.cat([node.slots for node in leaf.chain() if node.slots is not None]) for leaf in leaves]
        lengths = [len(row) for row in slots]
        offset = max(lengths)
        index = torch.zeros(len(slots), offset + extra, dtype=torch.long)
        for row, owned in enumerate(slots):
            index[row, : len(owned)] = owned
        if self._scratch is None or len(self._scratch) < index.numel():
            self._scratch = pool.storage.new_empty(index.numel(), *pool.storage.shape[1:])
        flat = self._scratch[: index.numel()]
        torch.index_select(pool.storage, 0, index.flatten().to(pool.storage.device), out=flat)
        buffer = flat.view(len(slots), offset + extra, *flat.shape[1:])
        return buffer, torch.tensor(lengths, device=pool.storage.device), offset

    def _store(self, nodes: list[Node], keep: set[Node], buffer: Tensor, rows: list[int], offset: int) -> None:
        """Move the segments of ``nodes`` from columns ``offset...`` of their rows into the pool."""
        sizes = [len(node.tokens) for node in nodes]
        slots = self._pool.allocate(sum(sizes), keep)
        row_index = torch.repeat_interleave(torch.tensor(rows), torch.tensor(sizes)).to(buffer.device)
        columns = torch.cat([torch.arange(offset, offset + size) for size in sizes]).to(buffer.device)
        self._pool.storage[slots.to(buffer.device)] = buffer[row_index, columns]
        for node, owned in zip(nodes, torch.split(slots, sizes), strict=True):
            node.slots = owned
            node.computed = True

    def _draw(self, batch: list[Request], keep: set[Node]) -> list[Generation]:
        backbone, device = self.backbone, self.backbone.device
        sampler = BatchSampler([request.sampling for request in batch if request.sampling is not None], device)
        first = torch.stack([request.node.hidden for request in batch if request.node.hidden is not None])
        tokens = sampler.draw(backbone.logits(first))
        handles: dict[int, Handle] = {}
        most = max(sampling.max_tokens for sampling in sampler.samplings)
        buffer, context, offset = self._gather([request.node for request in batch], extra=most - 1)
        past = WritingPast(buffer, offset)
        seen = torch.arange(offset, device=device) < context[:, None]
        while live := sampler.live:
            if 4 * live <= 3 * len(sampler.active):
                self._retire(batch, keep, sampler, past.buffer, offset, handles)
                stay = sampler.drop_finished()
                past.buffer = past.buffer.index_select(0, stay)
                tokens, context, seen = tokens[stay], context[stay], seen[stay]
            drawn = past.start - offset
            grown = torch.ones(len(sampler.active), drawn + 1, dtype=torch.bool, device=device)
            mask = torch.cat([seen, grown], dim=1)[:, None, None, :]
            hidden = backbone.hidden(tokens[:, None], (context + drawn)[:, None], mask, past)
            past.start += 1
            self.stats.forwarded_tokens += live
            self.stats.padding_tokens += len(sampler.active) - live
            tokens = sampler.draw(backbone.logits(hidden[:, 0]))
        self._retire(batch, keep, sampler, past.buffer, offset, handles)
        return [
            Generation(
                token_ids=tuple(row.token_ids),
                logprobs=tuple(row.logprobs),
                entropies=tuple(row.entropies),
                top_entropies=tuple(row.top_entropies),
                versions=(self.version,) * len(row.token_ids),
                finish_reason=row.reason or "length",
                handle=handles[number],
            )
            for number, row in enumerate(sampler.rows)
        ]

    def _retire(
        self,
        batch: list[Request],
        keep: set[Node],
        sampler: BatchSampler,
        buffer: Tensor,
        offset: int,
        handles: dict[int, Handle],
    ) -> None:
        """Make nodes of the active rows that are finished. The last token has not been through the model: it is pending."""
        finished = [(place, row) for place, row in enumerate(sampler.active) if sampler.rows[row].reason is not None]
        stored: list[tuple[int, Node]] = []
        for place, row in finished:
            ids = tuple(sampler.rows[row].token_ids)
            node = Node(self._pool, batch[row].node, ids[:-1], "action")
            handles[row] = Handle(node, ids[-1:])
            self.stats.sampled_tokens += len(ids)
            if node.tokens:
                stored.append((place, node))
        if stored:
            nodes = [node for _, node in stored]
            keep |= set(nodes)
            self._pool.touch(nodes)
            self._store(nodes, keep, buffer, [place for place, _ in stored], offset)

    def _score(self, batch: list[Request]) -> list[tuple[float, ...]]:
        alone = [request for request in batch if request.hidden is None]
        if any(len(request.continuation) > 1 for request in alone):
            rest, _, _ = self._extend(
                [request.node for request in alone], [request.continuation[:-1] for request in alone]
            )
        for row, request in enumerate(alone):
            assert request.node.hidden is not None  # _prefill has seen to it
            first = request.node.hidden[None]
            if len(request.continuation) > 1:
                first = torch.cat([first, rest[row, : len(request.continuation) - 1]])
            request.hidden = first[request.given :]
        logps = self.backbone.logits(torch.cat([r.hidden for r in batch if r.hidden is not None])).log_softmax(-1)
        wanted = [request.continuation[request.given :] for request in batch]
        ids = torch.tensor([token for tokens in wanted for token in tokens], device=logps.device)
        picked = iter(logps.gather(-1, ids[:, None])[:, 0].tolist())
        self.stats.scored_tokens += len(ids)
        return [tuple(itertools.islice(picked, len(tokens))) for tokens in wanted]
