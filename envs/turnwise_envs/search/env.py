"""Search as an environment: queries in, passages out, and a reward for the answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import ClassVar

from turnwise_envs.environment import SyncEnvironment, cut_short
from turnwise_envs.scoring import exact_match, f1, mentions
from turnwise_envs.search import protocol
from turnwise_envs.search.expert import expert_call
from turnwise_envs.search.library import Library
from turnwise_envs.search.options import Options
from turnwise_envs.search.problem import Problem
from turnwise_envs.search.protocol import Protocol
from turnwise_envs.search.rewards import answer_reward, judge_reward
from turnwise_envs.search.state import State
from turnwise_envs.search.tasks import SearchTasks
from turnwise_envs.tools_api import ToolAnswer, ToolMistake
from turnwise_envs.types import Action, JsonObject, Observation, StepResult, Task


class SearchEnvironment(SyncEnvironment):
    """One question. Subclasses set ``spec``, ``tasks`` and the ``protocol`` that the prompt explains."""

    tasks: ClassVar[SearchTasks]
    protocol: ClassVar[Protocol]

    _task: Task
    _problem: Problem
    _golds: list[str]
    _library: Library
    _options: Options
    _state: State
    #: What the judgements of the current turn are worth.
    _judgements: list[float]

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Ask the question. Nothing is random after that, so ``seed`` makes no difference."""
        self._become(task, Options(**options), State())
        chosen = self._options
        text = protocol.prompt(task.instruction, self.protocol, self._judged, chosen.max_searches, chosen.explain)
        return Observation.say(text, state_key=self._key())

    def step_sync(self, action: Action) -> StepResult:
        """Run the calls or tags in ``action``, in order; an answer ends the episode."""
        before, self._judgements = self._state, []
        box = protocol.BOX_WITH_JUDGE if self._judged else protocol.BOX
        turn = box.run(protocol.calls_in(action, self._judged), self._call)
        messages = protocol.messages_of(turn)
        if not turn.answers:
            messages = Observation.say(protocol.USAGE[self.protocol]).messages
        info = turn.info()
        if not info.action_valid:
            self._state = replace(self._state, slips=self._state.slips + 1)
        state = self._state
        reward = 0.0 - self._options.search_cost * (state.retrievals - before.retrievals)
        metrics = {"recall": self._recall()}
        if self._judgements:
            metrics["judge"] = sum(self._judgements)
            reward += metrics["judge"] if self._options.judge == "paid" else 0.0
        done = state.answer is not None
        if done:
            final = self._final_metrics()
            reward += self._answer_reward()
            end = "solved" if final["em"] else "failed"
            info = info.model_copy(update={"end": end})
            metrics |= final
        return StepResult(
            observation=Observation(
                messages=messages, state_key=self._key(), admissible_actions=self._judgements_to_choose()
            ),
            reward=reward,
            terminated=done,
            info=info.model_copy(update={"metrics": metrics}),
        )

    def finish_sync(self, reason: str) -> StepResult:
        """The end without an answer."""
        return cut_short(reason, reward=self._answer_reward(), metrics=self._final_metrics())

    def snapshot(self) -> bytes:
        task, options = self._task, self._options.model_dump(exclude_defaults=True)
        return json.dumps([task.split, task.index, options, self._state.plain()], separators=(",", ":")).encode()

    def restore(self, snapshot: bytes) -> None:
        split, index, options, state = json.loads(snapshot)
        self._become(self.tasks.get(split, index), Options(**options), State.of(state))

    def expert_action(self) -> Action | None:
        """What an expert would do that follows the plan of the question; None when the question is answered."""
        state, most = self._state, self._options.max_searches
        if state.answer is not None:
            return None
        call = expert_call(self._problem, state, self._library.corpus, most is None or state.searches < most)
        turn = state.searches + state.opens + state.slips
        return protocol.action(self.protocol, call.tool, call.argument, f"c{turn}_0")

    def _become(self, task: Task, options: Options, state: State) -> None:
        self._task, self._options, self._state = task, options, state
        self._problem = self.tasks.problem(task.split, task.index)
        self._library = self.tasks.library(task.split, task.index)
        self._golds = self.tasks.reference(task).answers

    @property
    def _judged(self) -> bool:
        return self._options.judge != "off"

    def _call(self, tool: str, arguments: JsonObject) -> ToolAnswer | str:
        """Run one call whose arguments fit."""
        argument: str = next(iter(arguments.values()))
        if tool == "judge":
            return self._judge(argument == "yes")
        if self._state.judging is not None:
            raise ToolMistake("First judge what was found: does it help to answer the question, yes or no?")
        if tool == "search":
            return self._search(argument)
        if self._state.rejected:
            raise ToolMistake("You judged that this does not help: search again first.")
        if tool == "open":
            return self._open(argument)
        self._state = replace(self._state, answer=argument)
        return ToolAnswer("Your answer was taken.", ends=True)

    def _search(self, query: str) -> ToolAnswer:
        state, options, corpus = self._state, self._options, self._library.corpus
        if options.max_searches is not None and state.searches >= options.max_searches:
            raise ToolMistake("No searches are left: answer now.")
        found = self._library.search(query, options.top_k)
        passages = [corpus[number].opening(options.passage_words) for number in found]
        self._state = replace(
            state.showing({number: min(options.passage_words, len(corpus[number].words)) for number in found}),
            searches=state.searches + 1,
            tried=(*state.tried, query),
            judging=self._is_helpful(found, passages) if self._judged else None,
            rejected=False,
        )
        lines = [
            f"Doc {place}(Title: {corpus[number].title}) {passage}"
            for place, (number, passage) in enumerate(zip(found, passages, strict=True), start=1)
        ]
        return ToolAnswer("\n".join(lines) or "Nothing was found.", counts={"searches": 1})

    def _open(self, title: str) -> ToolAnswer:
        corpus = self._library.corpus
        number = corpus.find(title)
        if number is None:
            raise ToolMistake("There is no document of this title. Search shows titles.")
        document = corpus[number]
        shown = self._state.showing({number: len(document.words)})
        self._state = replace(shown, opens=shown.opens + 1)
        return ToolAnswer(f"{document.title}\n{document.text}", counts={"opens": 1})

    def _judge(self, said: bool) -> ToolAnswer:
        ideal = self._state.judging
        if ideal is None:
            raise ToolMistake("There is nothing to judge: judge after a search.")
        self._judgements.append(judge_reward(said, ideal))
        no_more = self._options.max_searches is not None and self._state.searches >= self._options.max_searches
        self._state = replace(self._state, judging=None, rejected=not said and not no_more)
        return ToolAnswer("Noted." if said or no_more else "Then search again.")

    def _is_helpful(self, found: list[int], passages: list[str]) -> bool:
        """Whether a search brings evidence that was not there before; without evidence: whether it names an answer."""
        evidence = {piece.document for piece in self._problem.evidence}
        if not evidence:
            return any(mentions(passage, self._golds) for passage in passages)
        return any(number in evidence and number not in self._state.shown for number in found)

    def _judgements_to_choose(self) -> list[str] | None:
        """Where only a judgement can come next, it is a choice of two."""
        if self._state.judging is None or self._state.answer is not None:
            return None
        return ["<judge>No</judge>", "<judge>Yes</judge>"]

    def _recall(self) -> float:
        """Share of the evidence that was shown; 1.0 where there is none to find."""
        evidence = self._problem.evidence
        return sum(map(self._state.knows, evidence)) / len(evidence) if evidence else 1.0

    def _answer_reward(self) -> float:
        options, state = self._options, self._state
        return answer_reward(options.reward, state.answer, self._golds, well_formed=not state.slips)

    def _final_metrics(self) -> dict[str, float]:
        state, options = self._state, self._options
        answer = state.answer
        return {
            "em": 0.0 if answer is None else exact_match(answer, self._golds),
            "f1": 0.0 if answer is None else f1(answer, self._golds),
            "recall": self._recall(),
            "retrievals": float(state.retrievals),
            "cost": options.search_cost * state.retrievals,
        }

    def _key(self) -> str:
        """The question, what was shown, and what must come next; not by which queries it was found."""
        state = self._state
        waits = (state.judging is not None, state.rejected, state.answer)
        plain = f"{self._task.id} {sorted(state.shown.items())} {waits}"
        return hashlib.sha256(plain.encode()).hexdigest()[:16]
