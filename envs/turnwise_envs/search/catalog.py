"""The classes: searches in generated worlds, and in a corpus of one's own (the adapter ``search``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.search import protocol as protocols
from turnwise_envs.search.corpus import CorpusError
from turnwise_envs.search.env import SearchEnvironment
from turnwise_envs.search.files import FileTasks, read_questions
from turnwise_envs.search.options import Options, options_schema
from turnwise_envs.search.protocol import Protocol
from turnwise_envs.search.retrievers import RetrieverKind, check_installed
from turnwise_envs.search.tasks import SearchTasks, WorldTasks
from turnwise_envs.search.world import WorldSettings
from turnwise_envs.types import EnvSpec, SplitSpec

WORLD_SPLITS = [SplitSpec(name="train", size=10_000), SplitSpec(name="valid", size=1_000)]

#: For small policies: fourteen documents of a few words each, and few words in all.
EASY = WorldSettings(
    people=8,
    works=0,
    places=6,
    organisations=0,
    max_hops=2,
    relations=("teacher", "home", "mayor"),
    brief=True,
    questions_per_world=4,
)
#: Named worlds, each with the protocol that its prompt explains.
WORLDS: dict[str, tuple[WorldSettings, Protocol]] = {"": (WorldSettings(), "tools"), "easy": (EASY, "tags")}


def make_class(
    env_id: str,
    description: str,
    protocol: Protocol,
    splits: list[SplitSpec],
    tasks_of: Callable[[EnvSpec], SearchTasks],
) -> type[SearchEnvironment]:
    """An environment over the tasks that ``tasks_of`` makes for its spec."""
    made_spec = EnvSpec(
        id=env_id,
        version="1",
        description=description,
        action_format=protocol,
        tools=protocols.TOOLS if protocol == "tools" else [],
        max_turns=Options().max_turns,
        splits=splits,
        options_schema=options_schema(),
        deterministic=True,
        snapshot=True,
        stateless_tools=True,
    )
    made_tasks, made_protocol = tasks_of(made_spec), protocol

    class Made(SearchEnvironment):
        spec = made_spec
        tasks = made_tasks
        protocol = made_protocol

    return Made


Search = make_class(
    "search",
    "Questions of one to four hops about generated worlds, answered by searching their documents.",
    "tools",
    WORLD_SPLITS,
    lambda spec: WorldTasks(spec, WorldSettings(), "bm25", None),
)


@adapter
def search(
    name: str = "",
    *,
    corpus: str | None = None,
    tasks: str | None = None,
    retriever: RetrieverKind = "bm25",
    model: str | None = None,
    protocol: Protocol | None = None,
    max_hops: int | None = None,
    min_hops: int | None = None,
    people: int | None = None,
    works: int | None = None,
    places: int | None = None,
    organisations: int | None = None,
    questions_per_world: int | None = None,
) -> type[Environment]:
    """Search in documents of one's own, or in a generated world of other size.

    ``search:hotpot --corpus hotpot.json --tasks hotpot.json --retriever hybrid``: questions of a file over a corpus
    (:func:`read_questions`, :func:`read_corpus`); the name is free. ``search``, ``search:easy``, ``search:easy --max-hops
    1 --people 6``: a generated world (:class:`WorldSettings`). ``model`` is the dense model, a folder or an id.

    Raises UnknownEnvironment, CorpusError, MissingPackage.
    """
    sizes = {
        "max_hops": max_hops,
        "min_hops": min_hops,
        "people": people,
        "works": works,
        "places": places,
        "organisations": organisations,
        "questions_per_world": questions_per_world,
    }
    changed = {key: value for key, value in sizes.items() if value is not None}
    check_installed(retriever)
    if corpus is None and tasks is None:
        return _world(name, retriever, model, protocol, changed)
    if corpus is None or tasks is None:
        raise UnknownEnvironment("search needs both --corpus and --tasks, or neither for a generated world")
    if changed:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in changed)
        raise UnknownEnvironment(f"search: {options}: for generated worlds only, not with --corpus")
    return _files(name, corpus, tasks, retriever, model, protocol or "tools")


def _world(
    name: str, retriever: RetrieverKind, model: str | None, protocol: Protocol | None, changed: dict[str, int]
) -> type[Environment]:
    if name not in WORLDS:
        known = ", ".join(f"search:{world}" for world in WORLDS if world)
        raise UnknownEnvironment(f"no world search:{name}; there are: search, {known}. Your own: --corpus and --tasks")
    preset, usual = WORLDS[name]
    try:
        settings = WorldSettings.model_validate({**preset.model_dump(), **changed})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UnknownEnvironment(f"search --{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from error
    protocol = protocol or usual
    parts = [name] if name else []
    parts += [f"{key}{value}" for key, value in sorted(changed.items()) if value != getattr(preset, key)]
    parts += [protocol] if protocol != usual else []
    parts += [retriever] if retriever != "bm25" else []
    if not parts and model is None:
        return Search
    return make_class(
        f"search:{'.'.join(parts)}" if parts else "search",
        f"{Search.spec.description[:-1]} ({', '.join(parts)}).",
        protocol,
        WORLD_SPLITS,
        lambda spec: WorldTasks(spec, settings, retriever, model),
    )


def _files(
    name: str, corpus: str, tasks: str, retriever: RetrieverKind, model: str | None, protocol: Protocol
) -> type[Environment]:
    if not Path(corpus).exists():
        raise CorpusError(f"no such corpus: {corpus}")
    questions = read_questions(tasks)
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", Path(corpus).stem)
    return make_class(
        f"search:{name}",
        f"Questions answered by searching {Path(corpus).name} ({retriever}).",
        protocol,
        [SplitSpec(name=split, size=len(rows)) for split, rows in questions.items()],
        lambda spec: FileTasks(spec, questions, corpus, retriever, model),
    )
