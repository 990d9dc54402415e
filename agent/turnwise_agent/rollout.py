"""The rollout engine: drives remote sessions turn by turn with a policy and returns groups.

One coroutine per episode; everything by token id. With a :class:`~turnwise_agent.branching.BranchRule`, the live paths of
a group take their turns in rounds, and after each round the rule branches new episodes off: the session and the engine's
cache fork together, and the turns before the fork are shared nodes of the group's tree.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from turnwise_agent.actions import parse_action
from turnwise_agent.branching import BranchRound, BranchRule, LivePath
from turnwise_agent.client import Session, TurnwiseClient
from turnwise_agent.engines.base import Engine, Sampling
from turnwise_agent.errors import EnvFailed, ReplayMismatch, RolloutError, SessionGone, StepIndeterminate
from turnwise_agent.probing import AnswerProbe, GroupProbe
from turnwise_agent.renderer import Renderer
from turnwise_agent.trajectory import Episode, Group, StopReason, Turn, in_order
from turnwise_envs.types import EnvSpec, JsonObject, Observation, StepInfo, Task

T = TypeVar("T")
U = TypeVar("U")

#: An environment that loses more episodes of one group than this is broken, not unlucky.
MAX_REDRAWS = 8

#: What loses an episode and no more: it is dropped and drawn again. The environment broke; a rebuild led elsewhere (the
#: client stops the run if that happens too often); the session cannot be rebuilt; nobody knows whether a step happened.
LOST_EPISODE = (EnvFailed, ReplayMismatch, SessionGone, StepIndeterminate)

#: Seconds that a group which is given up waits for sessions that a server is still opening for it.
_OPENING_PATIENCE_S = 5.0


@dataclass(frozen=True)
class RolloutSettings:
    """How episodes are drawn.

    Attributes:
        temperature: of the policy; 0 is greedy.
        max_action_tokens: most tokens of one action, the stop token included.
        max_context_tokens: an episode whose next turn might not fit is finished with ``context_overflow``.
        max_concurrent_groups: how many groups are in flight at once.
        vocab_size: for entropy proxies that are relative to log|V|.
    """

    temperature: float = 1.0
    max_action_tokens: int = 32
    max_context_tokens: int = 2048
    max_concurrent_groups: int = 16
    vocab_size: int = 2


@dataclass(frozen=True)
class TaskDraw:
    """A group to draw: a task, the environment's seed and options, how many episodes, and the key of its randomness."""

    split: str
    index: int
    group_size: int
    key: tuple[int, ...]
    env_seed: int = 0
    options: JsonObject = field(default_factory=dict)


class RolloutEngine:
    """Draws groups of episodes of one environment.

    Args:
        client: where the sessions live.
        engine: where the tokens come from.
        renderer: the bridge between messages and tokens.
        spec: the environment, as its server describes it.
        settings: how episodes are drawn.
        on_turn: called after every turn (for progress displays).
    """

    def __init__(
        self,
        client: TurnwiseClient,
        engine: Engine,
        renderer: Renderer,
        spec: EnvSpec,
        settings: RolloutSettings,
        on_turn: Callable[[Turn], None] | None = None,
    ) -> None:
        self.client = client
        self.engine = engine
        self.renderer = renderer
        self.spec = spec
        self.settings = settings
        self.on_turn = on_turn

    async def draw(
        self, draws: Sequence[TaskDraw], rule: BranchRule | None = None, probe: AnswerProbe | None = None
    ) -> list[Group]:
        """All groups, in order. Raises what :meth:`draw_group` raises; the others are cancelled then."""
        groups: dict[int, Group] = {}
        async for number, group in self.stream(draws, rule, probe):
            groups[number] = group
        return [groups[number] for number in range(len(draws))]

    async def stream(
        self, draws: Sequence[TaskDraw], rule: BranchRule | None = None, probe: AnswerProbe | None = None
    ) -> AsyncIterator[tuple[int, Group]]:
        """Groups with their number in ``draws``, as they are finished."""
        gate = asyncio.Semaphore(self.settings.max_concurrent_groups)

        async def one(number: int) -> tuple[int, Group]:
            async with gate:
                return number, await self.draw_group(draws[number], rule, probe)

        tasks = [asyncio.create_task(one(number)) for number in range(len(draws))]
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def draw_group(
        self, draw: TaskDraw, rule: BranchRule | None = None, probe: AnswerProbe | None = None
    ) -> Group:
        """One group. With ``probe``, every turn has its ``answer_logprobs``.

        Raises:
            RolloutError: the task's prompt does not fit the context, the environment keeps losing episodes, or there is
                no answer to probe.
            EngineError: the engine cannot be probed.
            Forbidden, Unauthorized: the client's token may not see the answer.
            AgentError: the server or the engine failed for good.
        """
        run = _GroupRun(self, draw, probe)
        try:
            if rule is None:
                await run.independent()
            else:
                await run.branching(rule)
            return run.group()
        finally:
            await run.close()


@dataclass(frozen=True)
class _Mark:
    """Where a path stood after some number of turns: all that a fork at that boundary needs."""

    leaf: int | None
    handle: object | None
    observation: Observation
    context_tokens: int
    last_action_id: int | None


@dataclass
class _Path:
    """A live episode. ``marks[k]`` is where it stood after k turns."""

    member: int
    attempt: int
    session: Session
    marks: list[_Mark]
    entropies: list[float] = field(default_factory=list)
    forked_from: int | None = None
    forked_at: int = 0

    @property
    def turns(self) -> int:
        return len(self.marks) - 1


class _GroupRun:
    """The state of one group while it is drawn."""

    def __init__(self, engine: RolloutEngine, draw: TaskDraw, probe: AnswerProbe | None) -> None:
        self.owner = engine
        self.draw = draw
        self.probe = GroupProbe(probe, engine.engine, engine.renderer) if probe else None
        self.turns: list[Turn] = []
        self.episodes: dict[int, Episode] = {}
        self.opening: list[asyncio.Task[list[Session]]] = []
        self.first_handle: object | None = None  # keeps the shared prompt's cache for members that start later
        self.opened: tuple[Task, Observation] | None = None
        self.dropped = 0

    async def independent(self) -> None:
        """Every episode on its own, from the start to its end."""
        await _all(self._play(member) for member in range(self.draw.group_size))

    async def branching(self, rule: BranchRule) -> None:
        """Rounds of one turn for every live path; the rule branches after each. At the end there are as many episodes
        as the group should have: fresh ones, one at a time, take slots that no branch took."""
        size = self.draw.group_size
        rng = random.Random(repr((self.draw.key, "branch")))
        started = min(rule.initial(size), size)
        live = list(await _all(self._open(member) for member in range(started)))
        while live or started < size:
            if not live:
                live = [await self._open(started)]
                started += 1
            advanced = await _all(self._advance(path, rule) for path in live)
            live = [path for path in advanced if path is not None]
            state = BranchRound(
                paths=[
                    LivePath(path.member, tuple(path.entropies), path.forked_at)
                    for path in live
                    if path.turns and not self._replaced(path)
                ],
                free=size - started,
                rng=rng,
            )
            by_member = {path.member: path for path in live}
            forks = rule.forks(state)
            children = await _all(
                self._fork(by_member[fork.member], fork.at_turn, started + i) for i, fork in enumerate(forks)
            )
            started += len(children)
            live += children

    def group(self) -> Group:
        """What was drawn, without what was lost."""
        assert self.opened is not None
        task, initial = self.opened
        turns, episodes = in_order(self.turns, self.episodes)
        return Group(
            task=task,
            seed=self.draw.env_seed,
            options=self.draw.options,
            initial=initial,
            turns=turns,
            episodes=episodes,
            dropped=self.dropped,
        )

    async def close(self) -> None:
        """Give the sessions back; none of them is needed again."""
        if self.probe is not None:
            await self.probe.close()
        if not self.opening:
            return
        opened, late = await asyncio.wait(self.opening, timeout=_OPENING_PATIENCE_S)
        for task in late:
            task.cancel()
        sessions = [s for task in opened if not task.cancelled() and task.exception() is None for s in task.result()]
        await asyncio.gather(*(session.close() for session in sessions), return_exceptions=True)

    async def _hold(self, opening: Coroutine[Any, Any, list[Session]]) -> Session:
        """The one session that ``opening`` opens. :meth:`close` gives it back, even if we are cancelled before we know
        its name: a server finishes what it was asked for."""
        task = asyncio.create_task(opening)
        self.opening.append(task)
        (session,) = await asyncio.shield(task)
        return session

    async def _play(self, member: int) -> None:
        path: _Path | None = await self._open(member)
        while path is not None:
            path = await self._advance(path, None)

    async def _open(self, member: int, attempt: int = 0) -> _Path:
        while True:
            try:
                session = await self._hold(self._create())
                if self.probe is not None:
                    await self.probe.learn(session)
                break
            except LOST_EPISODE:
                self._count_drop()
                attempt += 1
        self.opened = self.opened or (session.task, session.observation)
        return _Path(member, attempt, session, [_Mark(None, None, session.observation, 0, None)])

    async def _create(self) -> list[Session]:
        draw = self.draw
        return [
            await self.owner.client.create(
                self.owner.spec.id, split=draw.split, index=draw.index, seed=draw.env_seed, options=draw.options
            )
        ]

    async def _fork(self, parent: _Path, at_turn: int, member: int) -> _Path:
        """A new path that shares the first ``at_turn`` turns of ``parent``; a fresh one if the environment lost it."""
        try:
            session = await self._hold(parent.session.fork(count=1, at_turn=at_turn))
        except LOST_EPISODE:
            self._count_drop()
            return await self._open(member, attempt=1)
        return _Path(
            member,
            0,
            session,
            parent.marks[: at_turn + 1],
            parent.entropies[:at_turn],
            forked_from=parent.member,
            forked_at=at_turn,
        )

    async def _advance(self, path: _Path, rule: BranchRule | None) -> _Path | None:
        """Take one turn. None when the episode has ended; another path if the environment lost it."""
        try:
            return await self._turn(path, rule)
        except LOST_EPISODE:
            self._count_drop()
            return await self._open(path.member, path.attempt + 1)

    async def _turn(self, path: _Path, rule: BranchRule | None) -> _Path | None:
        owner, settings, mark = self.owner, self.owner.settings, path.marks[-1]
        new_context = mark.leaf is None or mark.observation.context == "replace"
        if new_context:
            prompt = owner.renderer.first(mark.observation.messages, path.session.tools)
            parent, context = None, 0
        else:
            assert mark.last_action_id is not None
            prompt = owner.renderer.following(mark.observation.messages, mark.last_action_id)
            parent, context = mark.handle, mark.context_tokens
        context += len(prompt)
        if context + self._room > settings.max_context_tokens:
            await self._overflow(path, context)
            return None
        generating = owner.engine.generate(
            prompt,
            Sampling(
                max_tokens=settings.max_action_tokens,
                stop_ids=owner.renderer.stop_ids,
                temperature=settings.temperature,
                seed=(*self.draw.key, path.member, path.attempt, path.turns),
            ),
            parent,
        )
        answer_logprobs: tuple[float, ...] = ()
        if self.probe is None:
            drawn = await generating
        else:
            drawn, answer_logprobs = await _both(generating, self.probe.score(mark.leaf, prompt, parent))
        if self.first_handle is None:
            self.first_handle = drawn.handle
        action = parse_action(owner.renderer.decode(drawn.token_ids), path.turns, owner.spec)
        result = await path.session.step(action)
        turn = Turn(
            id=len(self.turns),
            parent=mark.leaf,
            index=path.turns,
            new_context=new_context,
            prompt_ids=tuple(prompt),
            action_ids=drawn.token_ids,
            logprobs=drawn.logprobs,
            entropies=drawn.entropies,
            top_entropies=drawn.top_entropies,
            versions=drawn.versions,
            action=action,
            observation=result.observation,
            reward=result.reward,
            terminated=result.terminated,
            truncated=result.truncated,
            info=result.info,
            log_hash=result.log_hash,
            answer_logprobs=answer_logprobs,
        )
        self.turns.append(turn)
        path.marks.append(
            _Mark(turn.id, drawn.handle, result.observation, context + len(drawn.token_ids), drawn.token_ids[-1])
        )
        if rule is not None:
            path.entropies.append(rule.entropy_of(drawn.top_entropies, settings.vocab_size))
        if owner.on_turn is not None:
            owner.on_turn(turn)
        if result.terminated or result.truncated:
            stop = StopReason.TERMINATED if result.terminated else StopReason.MAX_TURNS
            self._end(path, stop, 0.0, result.info, result.log_hash)
            return None
        return path

    async def _overflow(self, path: _Path, context: int) -> None:
        """The environment scores the state as it is."""
        if path.turns == 0:
            raise RolloutError(
                f"the prompt of {path.session.task.id} has {context} tokens; with an action of up to "
                f"{self._room} it does not fit max_context_tokens={self.owner.settings.max_context_tokens}"
            )
        result = await path.session.finish(StopReason.CONTEXT_OVERFLOW.value)
        self._end(path, StopReason.CONTEXT_OVERFLOW, result.reward, result.info, result.log_hash)

    def _end(self, path: _Path, stop: StopReason, reward: float, info: StepInfo, log_hash: str) -> None:
        leaf = path.marks[-1].leaf
        assert leaf is not None
        self.episodes[path.member] = Episode(
            member=path.member,
            leaf=leaf,
            stop=stop,
            final_reward=reward,
            final_info=info,
            log_hash=log_hash,
            forked_from=path.forked_from,
            forked_at=path.forked_at,
        )

    def _count_drop(self) -> None:
        self.dropped += 1
        if self.dropped > MAX_REDRAWS:
            raise RolloutError(
                f"environment {self.owner.spec.id!r} lost {self.dropped} episodes on task {self.draw.split}/"
                f"{self.draw.index}; see the server's log"
            )

    @property
    def _room(self) -> int:
        """Tokens that may come behind a prompt."""
        return max(self.owner.settings.max_action_tokens, self.probe.tokens if self.probe else 0)

    def _replaced(self, path: _Path) -> bool:
        return any(mark.observation.context == "replace" for mark in path.marks[1:])


async def _all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run together; if one fails the others are cancelled and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in running]


async def _both(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Like :func:`_all`, of two kinds."""
    results: list[Any] = await _all([one, other])
    return results[0], results[1]
