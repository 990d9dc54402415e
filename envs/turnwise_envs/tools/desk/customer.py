"""The scripted customer: a small state machine that listens for words, with no model behind it.

What it does with a message of the desk, in this order:

1. *anything else*, *goodbye*: the next request, or "No, that is all. Goodbye.", which ends the conversation.
2. Words of a topic (*booking*, *date of birth*): the sentence about it, if the customer knows one.
3. *Shall I*, *confirm*, *go ahead*, *proceed*, *agree*: "Yes, please go ahead." if the message names what it is about (the
   booking's or order's number), else it asks what it should agree to.
4. *Cannot*, *unable*, *sorry* and the like: insists once, if the request was to be refused.
5. Nothing of that: says that it did not understand, and its request again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from turnwise_envs.tools.desk.scenario import Scenario, Topic

_CLOSING = ("anything else", "something else", "goodbye", "good bye", "bye")
_ASKING = ("shall i", "should i", "confirm", "go ahead", "proceed", "agree", "is that ok", "is that okay", "yes or no")
_REFUSING = (
    "cannot", "can't", "can not", "unable", "sorry", "unfortunately", "not possible", "not allowed", "refuse", "refused",
)  # fmt: skip


class Mood(NamedTuple):
    """Where the customer stands: which request, what was told, whether it agreed, whether it has insisted, if it left."""

    request: int = 0
    told: tuple[str, ...] = ()
    agreed: bool = False
    insisted: bool = False
    gone: bool = False


#: How every customer begins.
UNTOUCHED = Mood()


def hear(scenario: Scenario, topics: Mapping[str, Topic], mood: Mood, message: str) -> tuple[str, Mood]:
    """The customer's reply to ``message``, and its mood after it."""
    heard = " ".join(message.lower().replace("\u2019", "'").split())
    request = scenario.requests[mood.request]
    if _any(_CLOSING, heard):
        if mood.request + 1 == len(scenario.requests):
            return "No, that is all. Goodbye.", mood._replace(gone=True)
        told = tuple(topic for topic in mood.told if topic in scenario.identity)
        return scenario.requests[mood.request + 1].opening, Mood(mood.request + 1, told)
    known = {**scenario.identity, **request.facts}
    asked = [topic for topic, (words, _) in topics.items() if topic in known and _any(words, heard)]
    said = [known[topic] for topic in asked]
    mood = mood._replace(told=tuple(sorted({*mood.told, *asked})))
    if _any(_ASKING, heard):
        if request.about and _any((request.about.lower(),), heard):
            return " ".join([*said, "Yes, please go ahead."]), mood._replace(agreed=True)
        if not said:
            return "What exactly should I agree to? Please say what you would do, and with which number.", mood
    if said:
        return " ".join(said), mood
    if _any(_REFUSING, heard):
        if request.plea and not mood.insisted:
            return request.plea, mood._replace(insisted=True)
        return "I see. That is a pity.", mood
    return f"I am not sure what you need from me. {request.opening}", mood


def _any(words: tuple[str, ...], heard: str) -> bool:
    return _pattern(words).search(heard) is not None


@lru_cache(maxsize=512)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)")
