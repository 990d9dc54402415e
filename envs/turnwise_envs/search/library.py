"""A corpus with an engine over it: what one searches in."""

from __future__ import annotations

from functools import cached_property

from turnwise_envs.search.corpus import Corpus
from turnwise_envs.search.retrievers import Retriever, RetrieverKind, build_retriever


class Library:
    """Documents and how to find them. The index is built at the first search, once."""

    def __init__(self, corpus: Corpus, kind: RetrieverKind, model: str | None = None) -> None:
        self.corpus = corpus
        self._kind = kind
        self._model = model

    def search(self, query: str, k: int) -> list[int]:
        """Positions of the best documents, best first."""
        return self.retriever.search(query, k)

    @cached_property
    def retriever(self) -> Retriever:
        texts = [f"{document.title}\n{document.text}" for document in self.corpus]
        return build_retriever(self._kind, texts, self._model)
