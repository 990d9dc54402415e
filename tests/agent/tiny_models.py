"""Models of a few thousand weights, and what they say when they are asked without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

VOCAB = 96


def tiny(kind: str = "qwen3", *, seed: int = 0, vocab: int = VOCAB, max_positions: int = 512) -> Any:
    """A randomly initialised decoder with grouped-query attention, far enough from uniform to have opinions."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    common: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": max_positions,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    if kind == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(head_dim=8, tie_word_embeddings=False, **common)).eval()
    return LlamaForCausalLM(LlamaConfig(**common)).eval()


@torch.no_grad()
def distribution(model: Any, context: Sequence[int], count: int, temperature: float = 1.0) -> torch.Tensor:
    """Log-probs ``[count, V]`` at the last ``count`` tokens of ``context``, by one plain forward of all of it."""
    logits = model(input_ids=torch.tensor([list(context)])).logits[0].float()
    return (logits[-count - 1 : -1] / temperature).log_softmax(-1)


def trie_size(paths: Sequence[Sequence[int]]) -> int:
    """Number of different non-empty prefixes: how many tokens must go through a model at least once."""
    return len({tuple(path[: end + 1]) for path in paths for end in range(len(path))})
