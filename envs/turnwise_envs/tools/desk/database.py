"""A small database as an immutable value: tables of rows by key. Whoever changes it gets another one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from turnwise_envs.tools_api import ToolMistake, clip

Row = Mapping[str, Any]
Database = Mapping[str, Mapping[str, Row]]


def row(db: Database, table: str, key: str) -> Row:
    """The row at ``key``. Raises ToolMistake, for the policy to read."""
    found = db[table].get(key)
    if found is None:
        raise ToolMistake(f"There is no {table.rstrip('s')} {clip(key, 60)!r}.")
    return found


def show(value: Any) -> str:
    """A row, or several, for the policy to read."""
    return json.dumps(value, ensure_ascii=False)


def put(db: Database, table: str, key: str, **columns: Any) -> Database:
    """A database in which the row at ``key`` has these columns; a new row if there was none."""
    rows = db[table]
    return {**db, table: {**rows, key: {**rows.get(key, {}), **columns}}}


def append(db: Database, table: str, **columns: Any) -> Database:
    """A database with one more row, keyed by its number."""
    return put(db, table, str(len(db[table]) + 1), **columns)
