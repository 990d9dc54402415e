"""``sql --spider DIR`` and ``sql --bird DIR``: the benchmarks' folders as environments. Without options: our own databases."""

from __future__ import annotations

from pathlib import Path

from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.sql.env import SPEC, Sql
from turnwise_envs.sql.folders import Benchmark, Folder
from turnwise_envs.sql.tasks import SqlTasks
from turnwise_envs.types import SplitSpec


@adapter
def sql(*, spider: str | None = None, bird: str | None = None) -> type[Environment]:
    """The ``sql`` environment on the folder ``spider`` or ``bird``; answers are compared by that benchmark's rule.

    Raises UnknownEnvironment for both at once, or a folder that is none of theirs.
    """
    if spider is not None and bird is not None:
        raise UnknownEnvironment("sql takes --spider DIR or --bird DIR, not both")
    if spider is not None:
        return _on("spider", Path(spider))
    if bird is not None:
        return _on("bird", Path(bird))
    return Sql


def _on(benchmark: Benchmark, root: Path) -> type[Environment]:
    folder = Folder(benchmark, root)
    made_spec = SPEC.model_copy(
        update={
            "id": f"sql:{benchmark}",
            "description": f"Questions of {benchmark.capitalize()}, answered in SQL and scored by execution.",
            "splits": [SplitSpec(name=split, size=size) for split, size in folder.sizes.items()],
        }
    )

    class OnFolder(Sql):
        spec = made_spec
        library = folder
        tasks = SqlTasks(made_spec, folder)
        rule = benchmark

    return OnFolder
