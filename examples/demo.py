"""The demo: a tiny policy learns household chores over HTTP, in minutes, on a laptop.

What happens, in order: a household server starts as its own process; a policy of a million parameters is made from
imperfect demonstrations; it plays unseen rooms (before); it is trained by GRPO against the server; it plays them again
(after). Everything lies in the directory that ``--out`` names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from turnwise_agent.rollout import RolloutSettings
from turnwise_agent.trajectory import Group
from turnwise_envs import Action, load
from turnwise_envs.episode import LiveEpisode
from turnwise_trainer.config import TrainConfig
from turnwise_trainer.config import load as load_config
from turnwise_trainer.evaluation import Evaluation, evaluate_checkpoint
from turnwise_trainer.imitation import ImitationSettings, make_policy
from turnwise_trainer.loop import train
from turnwise_trainer.progress import Progress
from turnwise_trainer.run_directory import RunDirectory
from turnwise_trainer.task_pool import matches

ENV = "household"
SPLIT = "valid_unseen"
EPISODES = 200
EVAL_TURNS = 30
#: The demonstrator forgets to clean, heat or cool in six of ten tasks, and one action in eight is a slip.
DEMOS, EPOCHS, CARELESS, NOISE = 3000, 2, 0.6, 0.12
CONTROL_STEPS = 12

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--control", action="store_true", help="shuffle rewards within groups: nothing is learned")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change a training setting")
    arguments = parser.parse_args()
    make_room(arguments.out)
    try:
        asyncio.run(demo(arguments.seed, arguments.out, arguments.control, arguments.set))
    except KeyboardInterrupt:
        console.print("\nstopped")
        sys.exit(130)


def make_room(out: Path) -> None:
    """An empty directory; an earlier demo in it goes, anything else stays and is an error."""
    if (out / "start" / "config.json").exists() or (out / "config.toml").exists():
        console.print(f"[dim]removing the earlier demo in {out}[/dim]")
        shutil.rmtree(out)
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"{out} holds something else; choose another --out")
    out.mkdir(parents=True, exist_ok=True)


async def demo(seed: int, out: Path, control: bool, overrides: list[str]) -> None:
    began = time.perf_counter()
    console.rule("[bold]1  the environment")
    with household_server() as url:
        console.print(f"{ENV} is served on {url}, in a process of its own")
        config = settings(seed, out, url, control, overrides)
        facts = await task_facts(config)
        console.print(
            f"{SPLIT}: an expert needs {facts['expert_turns_mean']:.1f} turns, rooms have at least "
            f"{facts['receptacles_min']} receptacles, a random policy solves {facts['random_success']:.1%}"
        )
        console.rule("[bold]2  a starting policy, from imperfect demonstrations")
        await starting_policy(config, out / "start")
        before = await play(config, out / "start")
        console.print(f"before: success [bold]{before.success:.3f}[/bold] on {before.episodes} episodes of {SPLIT}")
        console.rule("[bold]3  reinforcement learning over HTTP" + (" (control: shuffled rewards)" if control else ""))
        with RunDirectory.create(config) as run:
            result = await train(run, Progress(console))
        console.rule("[bold]4  the same tasks again")
        after = await play(config, result.checkpoint)
    summary = {
        "success_before": before.success,
        "success_after": after.success,
        "eval_split": SPLIT,
        "eval_episodes": after.episodes,
        "success_before_by_family": before.success_by("family"),
        "success_after_by_family": after.success_by("family"),
        **facts,
        "env_steps": result.totals.env_steps,
        "policy_tokens": result.totals.policy_tokens,
        "train_steps": config.steps,
        "train_seconds": round(result.totals.train_seconds, 1),
        "total_seconds": round(time.perf_counter() - began, 1),
        "seed": seed,
        "rewards_shuffled": control,
        "logprob_gap_max": result.totals.logprob_gap_max,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    draw_curve(out, before, after)
    report(out, before, after, summary, result.checkpoint)


def settings(seed: int, out: Path, url: str, control: bool, overrides: list[str]) -> TrainConfig:
    here = [f'model="{out / "start"}"', f'run="{out}"', f'env.urls=["{url}"]', f"seed={seed}"]
    shuffled = ['objective.rewards=["shuffled_env"]', f"steps={CONTROL_STEPS}"] if control else []
    return load_config(Path(__file__).with_name("demo.toml"), [*here, *shuffled, *overrides])


@contextmanager
def household_server() -> Iterator[str]:
    """``turnwise serve household`` on a free port; yields its address."""
    command = [sys.executable, "-m", "turnwise_envs", "serve", ENV, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if " on http://" not in line:
                raise SystemExit("the household server did not start; what it said is above")
            yield line.split(" on ")[1].strip()
        finally:
            process.terminate()


async def starting_policy(config: TrainConfig, out: Path) -> None:
    chosen = ImitationSettings(
        demos=DEMOS, where=config.env.where, noise=NOISE, epochs=EPOCHS, lr=2e-3, batch=4, seed=config.seed
    )
    expert = {"careless_expert": CARELESS, "orderly_expert": True, "thinking_expert": True}
    options = {**config.env.options, "max_turns": EVAL_TURNS, **expert}
    loss = await make_policy(load(ENV), chosen, out, options=options, on_step=track_steps("imitating"))
    console.print(
        f"{chosen.demos} demonstrations, of which {CARELESS:.0%} forget to clean, heat or cool; "
        f"{chosen.noise:.0%} of the actions are slips; loss {loss:.3f}"
    )


def track_steps(title: str):  # type: ignore[no-untyped-def]
    """A callback for ``make_policy`` that shows a bar."""
    bars: list[Iterator[int]] = []

    def on_step(done: int, total: int, loss: float) -> None:
        if not bars:
            bars.append(iter(track(range(total + 1), description=title, console=console)))
        next(bars[0])
        if done == total:
            list(bars[0])

    return on_step


async def play(config: TrainConfig, checkpoint: Path) -> Evaluation:
    greedy = RolloutSettings(
        temperature=0.0,
        max_action_tokens=config.rollout.max_action_tokens,
        max_context_tokens=config.rollout.max_context_tokens,
        max_concurrent_groups=128,
    )
    return await evaluate_checkpoint(
        checkpoint,
        ENV,
        config.env.urls,
        SPLIT,
        EPISODES,
        settings=greedy,
        options={**config.env.options, "max_turns": EVAL_TURNS},
        where=config.env.where,
    )


async def task_facts(config: TrainConfig) -> dict[str, float]:
    """How hard the tasks of the evaluation are, measured on the environment itself."""
    env_class = load(ENV)
    turns, receptacles, random_wins = [], [], 0
    candidates = (index for index in count() if matches(env_class.tasks.get(SPLIT, index), config.env.where))
    for index in islice(candidates, EPISODES):
        episode = await LiveEpisode.start(env_class, SPLIT, index)
        receptacles.append(episode.task.metadata["receptacles"])
        while not episode.done:
            action = episode.env.expert_action()
            assert action is not None
            await episode.step(action)
        turns.append(episode.turn)
        rng = random.Random(index)
        episode = await LiveEpisode.start(env_class, SPLIT, index)
        while not episode.done:
            await episode.step(Action(text=rng.choice(episode.observation.admissible_actions or [""])))
        random_wins += episode.records[-1].result.info.end == "solved"
    return {
        "expert_turns_mean": sum(turns) / len(turns),
        "receptacles_min": min(receptacles),
        "random_success": random_wins / EPISODES,
    }


def draw_curve(out: Path, before: Evaluation, after: Evaluation) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(steps, [row["success"] for row in rows if row["kind"] == "train"], label="training tasks (sampled)")
    axes.plot([0, steps[-1]], [before.success, after.success], "o--", label=f"{SPLIT} (greedy)")
    axes.set(xlabel="training step", ylabel="success", ylim=(0, 1), title="household")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out / "curve.png", dpi=120)


def report(out: Path, before: Evaluation, after: Evaluation, summary: dict[str, object], checkpoint: Path) -> None:
    table = Table("", "before", "after", title=f"{EPISODES} episodes of {SPLIT}, greedy decoding")
    table.add_row("[bold]success", f"[bold]{before.success:.3f}", f"[bold]{after.success:.3f}")
    table.add_row("turns", f"{before.turns:.1f}", f"{after.turns:.1f}")
    then, now = before.success_by("family"), after.success_by("family")
    for family in now:
        table.add_row(f"  {family}", f"{then[family]:.3f}", f"{now[family]:.3f}")
    console.print(table)
    task = next(
        (i for i, (a, b) in enumerate(zip(before.groups, after.groups, strict=True))
         if b.episodes[0].solved and not a.episodes[0].solved),
        0,
    )  # fmt: skip
    for title, evaluation in (("before", before), ("after", after)):
        show_episode(f"task {task} {title}", evaluation.groups[task])
    files = Table("what", "where", title="everything lies here")
    for what, where in {
        "this summary": out / "summary.json",
        "learning curve": out / "curve.png",
        "every turn, in SQLite": out / "trajectories.db",
        "metrics": out / "metrics.jsonl",
        "the policy": checkpoint,
    }.items():
        files.add_row(what, str(where))
    console.print(files)
    console.print(
        f"{summary['env_steps']} environment steps, {summary['policy_tokens']} policy tokens, training "
        f"{summary['train_seconds']} s, all in all {summary['total_seconds']} s"
    )


def show_episode(title: str, group: Group, most: int = 12) -> None:
    console.rule(title)
    console.print(group.initial.text, highlight=False)
    path = group.path(group.episodes[0])
    for turn in path[:most]:
        console.print(f"[bold cyan]> {turn.action.text}[/]", highlight=False)
        console.print(turn.observation.text, highlight=False)
    if len(path) > most:
        console.print(f"[dim]... {len(path) - most} more turns[/dim]")
    console.print(f"[bold]{group.episodes[0].final_info.end}[/bold]")


if __name__ == "__main__":
    main()
