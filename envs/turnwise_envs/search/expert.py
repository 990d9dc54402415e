"""An expert that follows the plan of a problem and reads only what the episode shows.

It is a function of the state alone. For each piece of evidence it searches for the name that it has come to know, opens
the document if the passage was cut off before the fact, and moves on when it has read it. In generated worlds it plays
fair, up to knowing how the question is built; over files it knows the titles of the evidence.
"""

from __future__ import annotations

from typing import NamedTuple

from turnwise_envs.search.corpus import Corpus
from turnwise_envs.search.problem import Problem
from turnwise_envs.search.state import State


class Call(NamedTuple):
    """A tool with its argument."""

    tool: str
    argument: str


def expert_call(problem: Problem, state: State, corpus: Corpus, searches_left: bool) -> Call:
    """What to do next."""
    if state.judging is not None:
        return Call("judge", "yes" if state.judging else "no")
    for lookup in problem.plan:
        if state.knows(lookup.evidence):
            continue
        title = corpus[lookup.evidence.document].title
        untried = [query for query in lookup.queries if query not in state.tried]
        if lookup.evidence.document not in state.shown and untried and searches_left:
            return Call("search", untried[0])
        if not state.rejected:
            return Call("open", title)
    if state.rejected and searches_left:
        return Call("search", problem.question)
    return Call("answer", problem.answers[0])
