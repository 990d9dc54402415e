"""Messages to token ids and back, without ever rendering a sampled turn again.

The first prompt is the chat template's. Everything after it is appended: the delimiters between an action and the next
one are derived from the template once, by rendering a conversation of markers and cutting it after the assistant's.
(Templates such as Qwen3's drop earlier thinking when a conversation is rendered afresh; ours never is.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from turnwise_agent.errors import RendererError
from turnwise_envs.types import Message, ToolSpec

_MARK = re.compile(r"TWMARK(\d+)KRAMWT")


def _mark(number: int) -> str:
    return f"TWMARK{number}KRAMWT"


class Renderer:
    """The bridge between an environment's messages and a policy's tokens.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.

    Attributes:
        stop_ids: ids that end an action: the template's end-of-turn token first, then the tokenizer's EOS.

    Raises:
        RendererError: there is no template, the delimiters cannot be derived from it, or the tokenizer changes text
            that is encoded piece by piece.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise RendererError("the tokenizer has no chat template; set tokenizer.chat_template and save it again")
        self._bridges: dict[tuple[str, ...], tuple[str, ...]] = {}
        delimiter = self._encode(self._bridge((Message(content=""),))[0], special=True)
        if not delimiter or delimiter[0] not in set(tokenizer.all_special_ids):
            raise RendererError(
                "the chat template does not end an assistant's message with a special token, so the end of an action "
                f"cannot be told; it continues with {self._bridge((Message(content=''),))[0][:40]!r}"
            )
        eos = tokenizer.eos_token_id
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([delimiter[0], *([eos] if eos is not None else [])]))
        self._encode_content = lru_cache(maxsize=65_536)(lambda text: self._encode(text, special=False))
        self._probe()

    def first(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> tuple[int, ...]:
        """The whole prompt, up to where the policy begins to speak."""
        schemas = [{"type": "function", "function": tool.model_dump()} for tool in tools] or None
        pieces = _MARK.split(self._template([_marked(m, i) for i, m in enumerate(messages)], schemas))
        _check_marks(pieces, messages)
        return self._join(pieces, messages)

    def following(self, messages: Sequence[Message], last_action_id: int) -> tuple[int, ...]:
        """What comes between an action that ended with ``last_action_id`` and the next one."""
        pieces = list(self._bridge(tuple(messages)))
        ids = self._join(pieces, messages)
        return ids[1:] if last_action_id == self.stop_ids[0] else ids

    def action_ids(self, text: str) -> tuple[int, ...]:
        """The token ids of a demonstrated action, stop token included. (What a policy sampled is never encoded.)"""
        return (*self._encode_content(text), self.stop_ids[0])

    def span_ids(self, before: str, span: str, after: str) -> tuple[tuple[int, ...], int]:
        """The ids of the action ``before + span + after``, cut behind ``span``, and how many stand before it.

        The action is encoded as a whole, as demonstrations are; a token with a character of ``span`` in it belongs to it.

        Raises:
            RendererError: the tokenizer does not say which characters a token has.
        """
        if not self.tokenizer.is_fast:
            raise RendererError("the tokenizer does not tell the places of its tokens; one with a tokenizer.json does")
        encoded = self.tokenizer(
            before + span + after, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        first, end = len(before), len(before) + len(span)
        inside = [i for i, (start, stop) in enumerate(encoded["offset_mapping"]) if start < end and stop > first]
        return tuple(encoded["input_ids"][: inside[-1] + 1]), inside[0]

    def decode(self, action_ids: Sequence[int]) -> str:
        """The text of an action, without its stop token."""
        ids = list(action_ids)
        if ids and ids[-1] in self.stop_ids:
            ids.pop()
        return self._decode(ids)

    def _bridge(self, messages: tuple[Message, ...]) -> tuple[str, ...]:
        """Template text after an assistant's message, split at the contents of ``messages``."""
        roles = tuple(message.role for message in messages)
        if roles not in self._bridges:
            number = len(messages)
            rendered = self._template(
                [
                    {"role": "user", "content": _mark(number + 1)},
                    {"role": "assistant", "content": _mark(number)},
                    *(_marked(message, i) for i, message in enumerate(messages)),
                ],
                None,
            )
            if rendered.count(_mark(number)) != 1:
                raise RendererError("the chat template does not show an assistant's message exactly once, as it is")
            tail = rendered.split(_mark(number))[1]
            pieces = _MARK.split(tail)
            _check_marks(pieces, messages)
            self._bridges[roles] = tuple(pieces)
        return self._bridges[roles]

    def _template(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
            )
        except Exception as error:  # templates raise whatever Jinja or their authors like
            raise RendererError(f"the chat template refuses {[m['role'] for m in messages]}: {error}") from error

    def _join(self, pieces: Sequence[str], messages: Sequence[Message]) -> tuple[int, ...]:
        """Delimiters are encoded with their special tokens, contents as plain text: nobody can fake a delimiter."""
        ids: list[int] = []
        for position, piece in enumerate(pieces):
            ids += (
                self._encode_content(messages[int(piece)].content)
                if position % 2
                else self._encode(piece, special=True)
            )
        return tuple(ids)

    def _probe(self) -> None:
        """Tokenizers that put a space before whatever they encode would do so at every seam."""
        message = Message(content="a , b 's\n\n  c")
        pieces = list(self._bridge((message,)))
        given = pieces[0] + message.content + pieces[2]
        back = self._decode(self._join(pieces, [message]))
        if back != given:
            raise RendererError(
                f"the tokenizer does not give back what it encodes in pieces: {given!r} became {back!r}"
            )

    def _decode(self, ids: Sequence[int]) -> str:
        options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(list(ids), **options))

    def _encode(self, text: str, *, special: bool) -> list[int]:
        if not text:
            return []
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special)
        return list(encoded["input_ids"])


def _marked(message: Message, number: int) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": message.role, "content": _mark(number)}
    if message.tool_call_id is not None:
        rendered["tool_call_id"] = message.tool_call_id
    return rendered


def _check_marks(pieces: Sequence[str], messages: Sequence[Message]) -> None:
    if [int(piece) for piece in pieces[1::2]] != list(range(len(messages))):
        roles = ", ".join(message.role for message in messages)
        raise RendererError(f"the chat template does not show messages of the roles {roles} once and in order")
