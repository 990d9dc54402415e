"""How a policy acts in a search: tools, or tags in its text. Both lead to the same calls.

::

    {"name": "search", "arguments": {"query": "author of Emma"}}        <search>author of Emma</search>
    {"name": "open", "arguments": {"title": "Emma"}}                    <open>Emma</open>
    {"name": "answer", "arguments": {"answer": "Jane Austen"}}          <answer>Jane Austen</answer>
    {"name": "judge", "arguments": {"useful": "yes"}}                   <judge>Yes</judge>
"""

from __future__ import annotations

from typing import Literal

from turnwise_envs.actions import tags
from turnwise_envs.tools_api import Toolbox, ToolTurn
from turnwise_envs.types import Action, JsonObject, Message, ToolCall, ToolSpec

Protocol = Literal["tools", "tags"]

#: Longest query, title or answer; longer ones are the work of a policy that has lost itself.
MAX_CHARACTERS = 1000


def _tool(name: str, description: str, argument: str, schema: JsonObject) -> ToolSpec:
    parameters = {
        "type": "object",
        "properties": {argument: schema},
        "required": [argument],
        "additionalProperties": False,
    }
    return ToolSpec(name=name, description=description, parameters=parameters)


_TEXT: JsonObject = {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS}

#: What a session offers.
TOOLS = [
    _tool("search", "Search the documents; gives the best ones, each from its beginning.", "query", _TEXT),
    _tool("open", "Read a whole document.", "title", _TEXT),
    _tool("answer", "Give the final answer, in as few words as possible. This ends the episode.", "answer", _TEXT),
]
#: Understood where an option asks for judgements; the prompt explains it.
_JUDGE = _tool("judge", "Say whether the last search helped.", "useful", {"enum": ["yes", "no"]})

BOX = Toolbox(TOOLS)
BOX_WITH_JUDGE = Toolbox([*TOOLS, _JUDGE])

_ARGUMENT = {"search": "query", "open": "title", "answer": "answer", "judge": "useful"}


def calls_in(action: Action, judged: bool) -> Action:
    """The action's tool calls; where it has none, the tags of its text as tool calls.

    A policy that calls tools may still judge in its text: judgements come before the calls.
    """
    names = [name for name in _ARGUMENT if judged or name != "judge"]
    wanted = names if not action.tool_calls else [name for name in names if name == "judge"]
    written = [
        ToolCall(id=_TAG_ID, name=tag.name, arguments={_ARGUMENT[tag.name]: _argument(tag.name, tag.content)})
        for tag in (tags(action.text, wanted) if wanted else ())
    ]
    return Action(text=action.text, tool_calls=[*written, *action.tool_calls])


def action(protocol: Protocol, tool: str, argument: str, call_id: str) -> Action:
    """The action that calls ``tool``; judgements are written as tags in either protocol."""
    if protocol == "tags" or tool == "judge":
        return Action(text=f"<{tool}>{argument.capitalize() if tool == 'judge' else argument}</{tool}>")
    return Action(tool_calls=[ToolCall(id=call_id, name=tool, arguments={_ARGUMENT[tool]: argument})])


def messages_of(turn: ToolTurn) -> list[Message]:
    """One ``tool`` message a call, then one of the user for all tags.

    What a search or an opened document shows stands between ``<information>`` tags when it was asked for in tags.
    """
    said, messages = [], []
    for call, answer in zip(turn.calls, turn.answers, strict=True):
        if call.id != _TAG_ID:
            messages.append(Message(role="tool", content=answer.content, tool_call_id=call.id))
        elif answer.content:
            shown = answer.effective and call.name in ("search", "open")
            said.append(f"<information>{answer.content}</information>" if shown else answer.content)
    return [*messages, Message(content="\n".join(said))] if said else messages


def prompt(question: str, protocol: Protocol, judged: bool, searches: int | None, explain: bool) -> str:
    """The first observation."""
    if not explain:
        return f"Question: {question}"
    lines = [_TASK, _HOW[protocol]]
    if judged:
        lines.append(_JUDGING)
    if searches is not None:
        lines.append(f"You have {searches} searches.")
    return f"{' '.join(lines)}\n\nQuestion: {question}"


USAGE: dict[Protocol, str] = {
    "tools": BOX.usage(),
    "tags": (
        "Nothing was done. Write <search>query</search> to search, <open>title</open> to read a document, or "
        "<answer>answer</answer> to answer."
    ),
}

_TAG_ID = "\0tag"  # no agent gives such an id, and it never leaves this module
_TASK = "Answer the question from the documents that you can search. What you remember does not help: look it up."
_HOW: dict[Protocol, str] = {
    "tools": (
        "The tool search finds documents and shows how they begin, open shows a whole one, and answer gives your final "
        "answer, in as few words as possible."
    ),
    "tags": (
        "Write <search>query</search> to search: what is found comes between <information> and </information>, each "
        "document from its beginning. Write <open>title</open> to read a whole document. When you know the answer, write "
        "it as <answer>answer</answer>, in as few words as possible. You may think between <think> and </think> before."
    ),
}
_JUDGING = (
    "After each search, judge what it found: write <judge>Yes</judge> if it helps to answer the question, else "
    "<judge>No</judge>; after a No, search again."
)


def _argument(name: str, content: str) -> str:
    return content.lower() if name == "judge" else content
