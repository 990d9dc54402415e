"""Where an episode stands: a small value that knows what was shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from turnwise_envs.search.problem import Evidence
from turnwise_envs.types import JsonObject


@dataclass(frozen=True)
class State:
    """``shown``: words shown of each document, from its beginning, by position in the corpus.

    ``tried``: queries so far. ``judging``: whether the last search helped, while a judgement of it is awaited.
    ``rejected``: the last search was judged useless, so another must come first. ``slips``: turns that were not valid.
    """

    shown: Mapping[int, int] = field(default_factory=dict)
    tried: tuple[str, ...] = ()
    searches: int = 0
    opens: int = 0
    slips: int = 0
    judging: bool | None = None
    rejected: bool = False
    answer: str | None = None

    @property
    def retrievals(self) -> int:
        """Searches and opened documents: what costs."""
        return self.searches + self.opens

    def showing(self, documents: Mapping[int, int]) -> State:
        """After so many words of these documents were shown."""
        more = {number: max(words, self.shown.get(number, 0)) for number, words in documents.items()}
        return replace(self, shown={**self.shown, **more})

    def knows(self, evidence: Evidence) -> bool:
        """Whether the document was read as far as it takes."""
        return self.shown.get(evidence.document, -1) >= evidence.words

    def plain(self) -> JsonObject:
        """As JSON has it; :meth:`of` reads it."""
        return {**vars(self), "shown": sorted(self.shown.items())}

    @classmethod
    def of(cls, plain: JsonObject) -> State:
        return cls(**{**plain, "shown": dict(plain["shown"]), "tried": tuple(plain["tried"])})
