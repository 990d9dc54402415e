"""Run a Hugging Face causal LM on new tokens after given keys and values, with positions and mask spelled out.

The engine and the learner both go through :class:`Backbone`, so that what is sampled and what is trained come from the
same arithmetic. Any decoder works whose layers call ``past_key_values.update`` and attend to everything before them.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from turnwise_agent.errors import EngineError

#: Their frequencies depend on the longest context in the batch, so a key is not a function of its own position alone.
MOVING_ROPE = frozenset({"dynamic", "longrope"})


class Past(Protocol):
    """What a layer asks for: take my new keys and values ``[B, H, Q, D]``, give me all to attend to ``[B, H, K, D]``."""

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]: ...


class WritingPast:
    """Writes new keys and values into a buffer ``[B, capacity, 2 * layers, H, D]`` in place (inference only).

    ``start`` is the column of the next new token; the caller moves it on.
    """

    def __init__(self, buffer: Tensor, start: int) -> None:
        self.buffer = buffer
        self.start = start

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        end = self.start + key.shape[2]
        keys, values = (self.buffer[:, :, 2 * layer_idx + i].transpose(1, 2) for i in range(2))  # [B, H, capacity, D]
        keys[:, :, self.start : end] = key
        values[:, :, self.start : end] = value
        return keys[:, :, :end], values[:, :, :end]


class JoiningPast:
    """Joins new keys and values to earlier ones without writing to them, so that gradients flow through both."""

    def __init__(self, earlier: list[tuple[Tensor, Tensor]] | None = None) -> None:
        self.earlier = earlier
        self.new: list[tuple[Tensor, Tensor]] = []

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.new.append((key, value))
        if self.earlier is None:
            return key, value
        past_key, past_value = self.earlier[layer_idx]
        return torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)


class Backbone:
    """A causal LM split into decoder and output head.

    Raises:
        EngineError: the architecture does more than decoder and linear head, or does not attend to its whole past, or turns a key
            by more than its own position.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config.get_text_config()
        self.decoder = model.get_decoder()
        self.head = model.get_output_embeddings()
        self.layers: int = self.config.num_hidden_layers
        self.kv_heads: int = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        self.head_dim: int = (
            getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        )
        self.max_positions: int = self.config.max_position_embeddings
        self._check()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype  # type: ignore[no-any-return]

    def hidden(self, ids: Tensor, positions: Tensor, mask: Tensor, past: Past) -> Tensor:
        """Last hidden states ``[B, Q, d]`` of ``ids`` ``[B, Q]``.

        ``mask`` is boolean ``[B, 1, Q, K]``, True where a query may look; every query must see at least one key.
        """
        output = self.decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True
        )
        return output.last_hidden_state  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """``[..., d] -> [..., V]`` in float32."""
        return self.head(hidden).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _check(self) -> None:
        kinds = set(getattr(self.config, "layer_types", None) or ["full_attention"])
        name = type(self.model).__name__
        if kinds == {"full_attention"} and getattr(self.config, "layer_types", None) is None:
            # Mistral's configuration, for one, has a window and no layer types.
            kinds = {"sliding_attention"} if getattr(self.config, "sliding_window", None) else kinds
        if kinds != {"full_attention"}:
            raise EngineError(f"{name} has {', '.join(sorted(kinds))} layers; only full attention is supported")
        moving = _rope_types(self.config) & MOVING_ROPE
        if moving:
            raise EngineError(
                f"{name} has RoPE of type {', '.join(sorted(moving))}: it turns all positions otherwise once a context is "
                "long, and keys that are kept would be wrong; it is not supported"
            )
        ids = torch.arange(4, device=self.device)[None] % self.config.vocab_size
        mask = torch.ones(4, 4, dtype=torch.bool, device=self.device).tril()[None, None]
        was_training = self.model.training
        self.model.eval()
        ours = self.logits(self.hidden(ids, torch.arange(4, device=self.device)[None], mask, JoiningPast()))
        theirs = self.model(input_ids=ids).logits.float()
        self.model.train(was_training)
        tolerance = 1e-4 if self.dtype == torch.float32 else 5e-2
        if not torch.allclose(ours, theirs, atol=tolerance, rtol=tolerance):
            raise EngineError(f"{name} does more to its logits than a linear head; it is not supported")


def _rope_types(config: Any) -> set[str]:
    """Of all layers: some configurations have one kind of RoPE, some one for each kind of layer."""
    given = getattr(config, "rope_parameters", None) or {}
    return {str(one["rope_type"]) for one in (given, *given.values()) if isinstance(one, dict) and "rope_type" in one}
