"""Runs the checks in their order and gathers the findings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from turnwise_envs import registry
from turnwise_envs.check import blocking, contract, cost, determinism, hidden, schemas
from turnwise_envs.check.report import Finding, Report
from turnwise_envs.check.subject import Failure, Skip, Subject
from turnwise_envs.environment import Environment
from turnwise_envs.episode import check_options
from turnwise_envs.types import JsonObject


@dataclass(frozen=True)
class Check:
    """``promise`` is what holds when the check is ok; ``needs`` are the checks without which it says nothing."""

    name: str
    promise: str
    run: Callable[[Subject], Awaitable[str | None]]
    needs: tuple[str, ...] = ()


CHECKS: tuple[Check, ...] = (
    Check("spec", "the spec is complete and true", contract.spec),
    Check("tasks", "tasks are fixed by split and index", contract.tasks, ("spec",)),
    Check("serialisable", "spec, tasks and references survive JSON", schemas.serialisable, ("tasks",)),
    Check("tools", "a tool parser accepts the schemas", schemas.tools, ("spec",)),
    Check("options", "unknown options are refused", contract.options, ("spec",)),
    Check("reset", "reset gives the complete prompt", contract.reset, ("tasks", "options")),
    Check("seeds", "every integer is a seed", contract.seeds, ("reset",)),
    Check("finish", "an episode can be ended and scored at any turn", contract.finish, ("reset",)),
    Check("step", "every action gets a StepResult", contract.step, ("finish",)),
    Check("junk", "no mistake of the policy raises", contract.junk, ("step",)),
    Check("reward", "rewards and metrics are finite numbers", contract.reward, ("step",)),
    Check("turn-limit", "the last turn is scored", contract.turn_limit, ("step", "junk")),
    Check("tool-messages", "each tool call gets one tool message", contract.tool_messages, ("step", "junk")),
    Check("determinism", "the same actions give the same bytes", determinism.determinism, ("step", "junk")),
    Check("isolation", "episodes do not touch each other", determinism.isolation, ("determinism",)),
    Check("fresh-process", "a fresh process gives the same bytes", determinism.fresh_process, ("isolation",)),
    Check("seed", "the index alone fixes the initial world", determinism.seed, ("determinism",)),
    Check("fork", "a fork goes on as its parent does", determinism.fork, ("isolation",)),
    Check("snapshot", "a snapshot holds the whole state", determinism.snapshot, ("fork", "fresh-process")),
    Check("canary", "the Reference stays hidden", hidden.canary, ("step",)),
    Check("blocking", "the event loop is never held up", blocking.blocking, ("step",)),
    Check("cost", "resets, steps and snapshots are affordable", cost.cost, ("step",)),
)


def check_env(
    env: str | type[Environment], *, episodes: int = 3, seed: int = 0, options: JsonObject | None = None
) -> Report:
    """Check an environment: a class, an id, or an import path ``module:Class``.

    ``episodes`` are played and then replayed in many ways; ``seed`` drives the choice of tasks and actions; ``options``
    are those of every episode.

    Raises:
        UnknownEnvironment: there is no such environment. All that is wrong with it is in the report.
        InvalidOptions: it has no such options.
    """
    env_class = registry.load(env) if isinstance(env, str) else env
    spec = getattr(env_class, "spec", None)
    name = env if isinstance(env, str) else f"{env_class.__module__}:{env_class.__qualname__}"
    if options:
        check_options(env_class, options)
    subject = Subject(env_class, name, max(1, episodes), seed, options or {})
    with ThreadPoolExecutor(1) as thread:  # its own loop, also when the caller is inside one (a notebook)
        findings = thread.submit(asyncio.run, _run(subject)).result()
    return Report(getattr(spec, "id", name), findings)


async def _run(subject: Subject) -> tuple[Finding, ...]:
    found: dict[str, Finding] = {}
    undecided: set[str] = set()  # failed, or not made for want of another: nothing can be built on these
    for check in CHECKS:
        if check.name in found:
            continue  # an earlier check traced its failure to this one
        missing = [name for name in check.needs if name in undecided]
        if missing:
            finding = Finding(check.name, "skipped", f"says nothing before `{missing[0]}` is ok.")
            undecided.add(check.name)
        else:
            finding = await _make(check, subject)
        if finding.status == "failed":
            undecided |= {check.name, finding.check}
            if finding.check != check.name:
                found[check.name] = Finding(check.name, "skipped", f"not decided before `{finding.check}` is ok.")
        found[finding.check] = finding
    return tuple(found[check.name] for check in CHECKS)


async def _make(check: Check, subject: Subject) -> Finding:
    try:
        return Finding(check.name, "ok", await check.run(subject) or check.promise)
    except Skip as reason:
        return Finding(check.name, "skipped", str(reason))
    except Failure as failure:
        return Finding(failure.check or check.name, "failed", str(failure))
    except Exception as error:  # a broken environment can raise anything anywhere; the other checks go on
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        return Finding(check.name, "failed", f"{check.promise}: in testing this, the environment raised {told}.")
