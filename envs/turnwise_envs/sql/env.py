"""SQL as an environment: look at a database, try statements, submit one; scored by execution on several databases."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import ClassVar

from turnwise_envs.actions import tags, without_thoughts
from turnwise_envs.environment import SyncEnvironment, cut_short
from turnwise_envs.sql import prompts
from turnwise_envs.sql.compare import Rule
from turnwise_envs.sql.describe import describe, list_tables, schema, show
from turnwise_envs.sql.judge import fingerprint, judge
from turnwise_envs.sql.library import SPLITS, Generated, Library, Problem
from turnwise_envs.sql.rewards import MOST_EXPLORED, Score, reward
from turnwise_envs.sql.sandbox import Outcome, Sandbox
from turnwise_envs.sql.statement import tokens
from turnwise_envs.sql.tasks import SqlTasks
from turnwise_envs.tools_api import ToolAnswer, Toolbox, ToolMistake
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Message,
    Observation,
    SplitSpec,
    StepInfo,
    StepResult,
    Task,
    ToolCall,
    ToolSpec,
)

_STATEMENT = {
    "type": "object",
    "properties": {"sql": {"type": "string", "description": "One SQLite statement."}},
    "required": ["sql"],
    "additionalProperties": False,
}
BOX = Toolbox(
    [
        ToolSpec(name="list_tables", description="List the tables of the database with their numbers of rows."),
        ToolSpec(
            name="describe",
            description="Show a table's columns: types, keys, what they refer to, and some of their values.",
            parameters={
                "type": "object",
                "properties": {"table": {"type": "string", "description": "Name of the table."}},
                "required": ["table"],
                "additionalProperties": False,
            },
        ),
        ToolSpec(
            name="run",
            description="Run one SQL statement and see the first rows of its result, or the error.",
            parameters=_STATEMENT,
        ),
        ToolSpec(
            name="submit",
            description="Submit one SQL statement as the answer. This ends the episode.",
            parameters=_STATEMENT,
        ),
    ]
)

OPTIONS: JsonObject = {
    "type": "object",
    "properties": {
        "max_turns": {"type": "integer", "minimum": 1, "maximum": 100},
        "action_format": {
            "enum": ["tools", "tags"],
            "description": "Where the action is: in tool calls, or in the text as <sql> and <answer>.",
        },
        "compare": {
            "enum": ["turnwise", "spider", "bird"],
            "description": "When a result is right: by our rule, or as Spider's test suite or BIRD have it.",
        },
        "reward": {
            "enum": ["outcome", "seq2sql", "reex", "sparks"],
            "description": "The reward table of the last turn.",
        },
        "instances": {
            "type": "integer",
            "minimum": 1,
            "maximum": 100,
            "description": "Databases that an answer is scored on, at most.",
        },
        "rows_shown": {
            "type": "integer",
            "minimum": 1,
            "maximum": 100,
            "description": "Rows of a result that are shown.",
        },
        "show_schema": {
            "type": "boolean",
            "description": "Write the CREATE TABLE statements into the prompt; by default only where there are no tools.",
        },
    },
    "additionalProperties": False,
}

SPEC = EnvSpec(
    id="sql",
    # VM steps, messages and query plans are SQLite's: with another version of it, an episode may be another one.
    version=f"2+sqlite{sqlite3.sqlite_version}",
    description="Questions about databases, answered in SQL and scored by execution on several databases.",
    action_format="tools",
    tools=BOX.specs,
    max_turns=15,
    splits=[SplitSpec(name=name, size=size) for name, _, _, _, size in SPLITS],
    options_schema=OPTIONS,
    deterministic=True,
    snapshot=True,
    stateless_tools=True,
)

_RUN_TAGS = ("sql", "intermediate_sql")
_SUBMIT_TAGS = ("answer", "final_sql")
_FENCED = re.compile(r"```(?:sql|sqlite)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
#: Statements of one text that are run.
_MOST_STATEMENTS = 8
#: Rows that are fetched when a statement is tried; enough to say how many there are.
_TRY_ROWS = 1_000
#: What does not change need not be looked up again; a private copy is neither shared nor kept.
_list_shared = lru_cache(maxsize=256)(list_tables)
_describe_shared = lru_cache(maxsize=1024)(describe)


@dataclass
class _Progress:
    """What the episode has come to, as it stands in its snapshots.

    ``explored`` are marks of different statements that ran; ``written`` the statements that may have changed the private
    copy; ``listed``, ``described`` and ``tried`` what the expert need not do again.
    """

    explored: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    described: list[str] = field(default_factory=list)
    listed: bool = False
    tried: bool = False


class Sql(SyncEnvironment):
    """One question about one database. Blocking: a statement may take as long as its VM steps."""

    spec = SPEC
    library: ClassVar[Library] = Generated()
    tasks = SqlTasks(SPEC, library)
    #: The comparison rule unless the options name one.
    rule: ClassVar[Rule] = "turnwise"

    _split: str
    _index: int
    _options: JsonObject
    _problem: Problem
    _progress: _Progress
    _private: Sandbox | None = None

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Begin ``task``. Nothing is random, so ``seed`` makes no difference."""
        self._become(task.split, task.index, options, _Progress())
        key = self._problem.databases[0]
        shown = schema(self._shown) if options.get("show_schema", self._tags) else ""
        text = prompts.opening(self._problem, self.library.about(key), self._shown.today, self._tags, shown)
        return Observation.say(text, state_key=self._key())

    def step_sync(self, action: Action) -> StepResult:
        """Run what the action asks for. Errors of SQL are observations; the submission ends the episode."""
        self._score: Score | None = None
        result = self._step_tags(action) if self._tags else self._step_tools(action)
        if self._score is None:
            seen = result.observation.model_copy(update={"state_key": self._key()})
            return result.model_copy(update={"observation": seen})
        return result

    def finish_sync(self, reason: str) -> StepResult:
        """Nothing was submitted."""
        score = Score(None, self._problem.gold, False, False, len(self._progress.explored))
        return cut_short(
            reason,
            reward=reward(self._options.get("reward", "outcome"), score),
            metrics={"success": 0.0, "executable": 0.0},
        )

    def snapshot(self) -> bytes:
        return json.dumps([self._split, self._index, self._options, asdict(self._progress)]).encode()

    def restore(self, snapshot: bytes) -> None:
        split, index, options, progress = json.loads(snapshot)
        self._become(split, index, options, _Progress(**progress))
        if self._private is not None:
            for statement in self._progress.written:
                self._private.run(statement)

    def expert_action(self) -> Action | None:
        """Look, try the gold statement, submit it."""
        progress = self._progress
        if self._tags:
            tag = "answer" if progress.tried else "sql"
            return Action(text=f"<{tag}>{self._problem.gold}</{tag}>")
        if not progress.listed:
            return _call("list_tables")
        names = {token.text for token in tokens(self._problem.gold)}
        wanted = [t for t in self._shown.tables if t.lower() in names and t not in progress.described]
        if wanted:
            return _call("describe", table=wanted[0])
        return _call("submit" if progress.tried else "run", sql=self._problem.gold)

    async def close(self) -> None:
        if self._private is not None:
            self._private.close()
            self._private = None

    def _become(self, split: str, index: int, options: JsonObject, progress: _Progress) -> None:
        self._split, self._index, self._options, self._progress = split, index, options, progress
        self._problem = self.library.problem(split, index)
        shared = self.library.database(self._problem.databases[0])
        self._private = shared.copy() if self._problem.writes is not None else None
        self._shown = self._private or shared
        self._tags = options.get("action_format") == "tags"
        self._content_known = (0, "")

    def _step_tools(self, action: Action) -> StepResult:
        if not action.tool_calls:
            said = StepInfo(action_valid=False, action_effective=False, error="no tool call")
            return StepResult(observation=Observation.say(BOX.usage()), info=said)
        turn = BOX.run(action, self._call)
        return self._ended(turn.result()) if self._score else turn.result()

    def _step_tags(self, action: Action) -> StepResult:
        answers: list[ToolAnswer] = []
        for name, sql in _statements(action.text)[:_MOST_STATEMENTS]:
            answers.append(self._submit(sql) if name == "submit" else self._run(sql))
            if answers[-1].ends:
                break
        said = "\n".join(f"<result>\n{answer.content}\n</result>" for answer in answers) or prompts.NO_TAGS
        tool_messages = [
            Message(role="tool", content=prompts.NO_TOOLS, tool_call_id=call.id) for call in action.tool_calls
        ]
        wrong = [answer.content for answer in answers if not answer.effective]
        counts = [answer.counts for answer in answers]
        result = StepResult(
            observation=Observation(messages=[*tool_messages, Message(content=said)]),
            info=StepInfo(
                action_valid=bool(answers),
                action_effective=any(answer.effective for answer in answers),
                error=wrong[0][:200] if wrong else None,
                counters={"tool_calls": len(answers)}
                | {
                    name: sum(count.get(name, 0) for count in counts) for name in sorted({n for c in counts for n in c})
                },
            ),
        )
        return self._ended(result) if self._score else result

    def _call(self, name: str, arguments: JsonObject) -> ToolAnswer | str:
        if name == "list_tables":
            self._progress.listed = True
            return (_list_shared if self._private is None else list_tables)(self._shown)
        if name == "describe":
            return self._describe(arguments["table"])
        return self._submit(arguments["sql"]) if name == "submit" else self._run(arguments["sql"])

    def _describe(self, wanted: str) -> str:
        table = next((table for table in self._shown.tables if table.lower() == wanted.strip().lower()), None)
        if table is None:
            raise ToolMistake(f"There is no table {wanted[:60]!r}. Tables: {', '.join(self._shown.tables[:60])}.")
        if table not in self._progress.described:
            self._progress.described.append(table)
        notes = self.library.notes(self._problem.databases[0], table)
        return (_describe_shared if self._private is None else describe)(self._shown, table, notes)

    def _run(self, sql: str) -> ToolAnswer:
        outcome = self._shown.run(sql, _TRY_ROWS)
        progress = self._progress
        progress.tried = progress.tried or sql == self._problem.gold
        if self._private is not None and outcome.changed is not None:
            progress.written.append(sql)
        if outcome.ok:
            mark = _mark(" ".join(sql.lower().split()))
            if mark not in progress.explored and len(progress.explored) < MOST_EXPLORED:
                progress.explored.append(mark)
        text = show(outcome, self._options.get("rows_shown", 10))
        counted = "queries" if outcome.columns or outcome.ok else "sql_errors"
        return ToolAnswer(text, effective=outcome.ok, counts={counted: 1})

    def _submit(self, sql: str) -> ToolAnswer:
        rule: Rule = self._options.get("compare", self.rule)
        verdict = judge(
            self.library, self._problem, sql, rule, self._options.get("instances", len(self._problem.databases))
        )
        self._score = Score(sql, self._problem.gold, verdict.executable, verdict.solved, len(self._progress.explored))
        self._verdict = verdict
        shown = "" if verdict.executable else f" {show(verdict.shown, 1)}"
        return ToolAnswer(prompts.SUBMITTED + shown, ends=True, effective=verdict.executable)

    def _ended(self, result: StepResult) -> StepResult:
        """The result of the turn with the submission. Submissions with equal results share the state key."""
        score, verdict = self._score, self._verdict
        assert score is not None
        metrics = {
            "success": float(score.solved),
            "executable": float(score.executable),
            "databases_right": verdict.correct / verdict.databases,
        }
        key = _mark(f"{self._split}/{self._index}/{_result_key(verdict.shown, self._problem.ordered)}")
        return result.model_copy(
            update={
                "reward": float(reward(self._options.get("reward", "outcome"), score)),
                "terminated": True,
                "observation": result.observation.model_copy(update={"state_key": key}),
                "info": result.info.model_copy(
                    update={"metrics": metrics, "end": "solved" if score.solved else "failed"}
                ),
            }
        )

    def _key(self) -> str:
        """The task, and what the private copy holds; what the policy has looked at is knowledge and stays out."""
        return _mark(f"{self.spec.id}/{self._split}/{self._index}/{self._content()}")

    def _content(self) -> str:
        """What has become of the private copy; empty while nothing was written."""
        count = len(self._progress.written)
        if self._private is None or not count:
            return ""
        if self._content_known[0] != count:
            private = self._private
            tables = [table for table in private.tables if table in private.written]
            self._content_known = (count, "/".join(f"{table}={fingerprint(private, table)}" for table in tables))
        return self._content_known[1]


def _statements(said: str) -> list[tuple[str, str]]:
    """What the text asks for: ("run" or "submit", statement), in order. Fenced blocks count where there are no tags."""
    found = tags(said, (*_RUN_TAGS, *_SUBMIT_TAGS))
    if not found:
        return [("run", block.strip()) for block in _FENCED.findall(without_thoughts(said)) if block.strip()]
    return [("submit" if tag.name in _SUBMIT_TAGS else "run", _unfenced(tag.content)) for tag in found]


def _unfenced(content: str) -> str:
    block = _FENCED.search(content)
    return block[1].strip() if block else content


def _result_key(outcome: Outcome, ordered: bool) -> str:
    rows = [repr(row) for row in outcome.rows]
    return f"{outcome.ending}/{outcome.message}/{rows if ordered else sorted(rows)}"


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _call(name: str, **arguments: str) -> Action:
    return Action(tool_calls=[ToolCall(id="c0_0", name=name, arguments=dict(arguments))])
