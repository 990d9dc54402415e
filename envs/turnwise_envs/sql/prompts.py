"""What the environment says: the prompt in both forms of action, and its answers to what is no action."""

from __future__ import annotations

import sqlite3

from turnwise_envs.sql.library import Problem

_TOOLS = """\
Use the tools to look at the database and to try statements, then call submit with one SQL statement that {does}. \
You can submit once."""
_TAGS = """\
Write <sql>...</sql> (or a fenced sql block) to run a statement and see its result. When you are sure, write one SQL \
statement in <answer>...</answer> that {does}. You can answer once."""
_QUERY = "answers the question"
_WRITE = "makes the change"
_RULES = """\
The statement is scored by running it on this database and on others with the same tables but other rows, so it must say \
what is asked in general. Give the columns in the order of the question, do not round unless asked, and use values as they \
are stored. Today is {today} for SQLite."""
_WRITE_RULES = """\
The statement is scored by running it on fresh copies of this database and of others with the same tables but other rows, and \
comparing what is in them then. What you run before changes a private copy only. Today is {today} for SQLite."""

NO_TOOLS = "Tool calls have no effect here: write <sql>...</sql> or <answer>...</answer>."
NO_TAGS = "Nothing was run: write a statement in <sql>...</sql> to run it, or in <answer>...</answer> to submit it as your answer."
SUBMITTED = "Submitted."


def opening(problem: Problem, about: str, today: str, tags: bool, schema: str) -> str:
    """The whole first message."""
    writes = problem.writes is not None
    name = problem.databases[0][0]
    parts = [f"There is an SQLite database ({sqlite3.sqlite_version}) called {name}." + (f" {about}" if about else "")]
    if schema:
        parts.append(schema)
    parts.append((_TAGS if tags else _TOOLS).format(does=_WRITE if writes else _QUERY))
    parts.append((_WRITE_RULES if writes else _RULES).format(today=today[:10]))
    if problem.hint:
        parts.append(f"Hint: {problem.hint}")
    parts.append(f"{'Task' if writes else 'Question'}: {problem.question}")
    return "\n\n".join(parts)
