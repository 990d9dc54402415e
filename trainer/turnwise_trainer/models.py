"""Causal language models and tokenizers on disk, in Hugging Face format; and a tiny one made from nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from turnwise_trainer.errors import ModelError

#: One token before each message and one after the policy's: delimiters should not cost a small model its context.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message.role + '|>' + message.content -}}"
    "{%- if message.role == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
SPECIAL_TOKENS = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")

#: A word with a number behind it.
_NAME = re.compile(r"([^\W\d]+) \d")


def load_model(path: str | Path, device: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of a checkpoint directory, float32 on the CPU and in its own precision on a GPU.

    Raises:
        ModelError: nothing that can be loaded is there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (Path(path) / "config.json").is_file():
        raise ModelError(f"{path} is not a Hugging Face checkpoint directory (it has no config.json)")
    device = device or default_device()
    _no_bars()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32 if device == "cpu" else "auto", attn_implementation="sdpa"
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # whatever a damaged or foreign checkpoint provokes inside the loaders
        raise ModelError(f"cannot load the checkpoint {path}: {_first_line(error)}") from error
    return model.to(device), tokenizer


def save_model(model: Any, tokenizer: Any, path: str | Path) -> None:
    """Write weights (safetensors), configuration and tokenizer."""
    _no_bars()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _no_bars() -> None:
    """Transformers shows a bar for every file; they would run through the display of a run."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def make_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> Any:
    """A byte-level BPE tokenizer with a chat template, trained on ``texts``. It can encode any text.

    An environment says few sentences many times over. Their phrases ("You arrive at", ", you see a") become one token
    each, which halves what a small policy has to read. Numbers, and words that stand before a number somewhere
    ("fridge 1"), never melt into a phrase: a name is the same token wherever it stands, so that it can be copied.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = list(texts)
    names = sorted({name for text in texts for name in _NAME.findall(text)}, key=lambda name: (-len(name), name))
    apart = [rf" ?\b(?:{'|'.join(map(re.escape, names))})\b"] if names else []
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("|".join([*apart, r" ?\d+"])), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS[2:])})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_tiny_model(
    tokenizer: Any, *, hidden: int = 128, layers: int = 3, heads: int = 4, max_positions: int = 4096, seed: int = 0
) -> Any:
    """A randomly initialised Qwen3 model: about a million parameters by default."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=max_positions,
        # Contexts of hundreds of tokens, not of a hundred thousand: the usual base leaves most frequencies unused.
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        initializer_range=hidden**-0.5,  # the usual 0.02 suits widths of thousands
        # vLLM serves wrong logits after an in-place weight reload when the embeddings are tied.
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)
