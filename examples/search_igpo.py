"""IGPO beside GRPO: a tiny policy learns to answer questions by searching, on a CPU.

For each seed, a policy of 0.4 million parameters imitates few demonstrations of a hasty expert, who often gives the first
name that it finds for the answer, and answers questions about worlds that it has never seen (start). From there it is
trained once with each objective, on the same tasks with as many steps, episodes and the same learning rate, and answers
the same questions again. The two differ only in how turns are
paid: GRPO gives every turn of an episode the F1 of its answer, IGPO pays a search by how much more likely it makes the gold
answer to the policy, and the answer by its F1.

The last line is everything as one JSON object. What lies in ``--out`` already is not run again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from turnwise_agent.renderer import Renderer
from turnwise_agent.rollout import RolloutSettings
from turnwise_envs import Action, load
from turnwise_envs.episode import LiveEpisode
from turnwise_trainer.config import TrainConfig
from turnwise_trainer.config import load as load_config
from turnwise_trainer.evaluation import Evaluation, evaluate_checkpoint
from turnwise_trainer.imitation import Demonstration, ImitationSettings, Recording, imitate
from turnwise_trainer.loop import train
from turnwise_trainer.models import make_tiny_model, make_tokenizer, save_model
from turnwise_trainer.progress import Progress
from turnwise_trainer.run_directory import RunDirectory

ENV = "search:easy"
#: Held out: other worlds than those of ``train``.
SPLIT, EPISODES = "valid", 400
#: The demonstrator answers after its first search in six of ten tasks that take two.
DEMOS, HASTE = 600, 0.6
#: What differs between the runs. The preset igpo also has a KL term and averages within episodes first; here it does
#: neither, as grpo. The template is how this policy writes an answer.
ARMS = {
    "grpo": ['objective="grpo"'],
    "igpo": [
        'objective="igpo"',
        "objective.regularizers=[]",
        'objective.loss.aggregation="token-mean"',
        'objective.rewards.info_gain.template="<answer>{answer}</answer>"',
    ],
}
METRICS = ("f1", "em", "recall", "retrievals")

Scores = dict[str, float]

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, action="append", help="may be given more than once; by default 0, 1 and 2")
    parser.add_argument("--objective", choices=list(ARMS), action="append", help="by default both, one after the other")
    parser.add_argument("--out", type=Path, default=Path("runs/search_igpo"))
    parser.add_argument("--demos", type=int, default=DEMOS, help="demonstrations; more make a better start")
    parser.add_argument("--episodes", type=int, default=EPISODES, help=f"questions of {SPLIT} to be answered")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change a training setting")
    arguments = parser.parse_args()
    arms = arguments.objective or list(ARMS)
    results = []
    for seed in arguments.seed or [0, 1, 2]:
        out = arguments.out / f"seed-{seed}"
        if not all((out / f"{policy}.json").exists() for policy in ("start", *arms)):
            asyncio.run(compare(seed, out, arms, arguments.demos, arguments.episodes, arguments.set))
        read = {policy: json.loads((out / f"{policy}.json").read_text()) for policy in ("start", *arms)}
        results.append({"seed": seed, "demos": arguments.demos, "episodes": arguments.episodes, **read})
    report(results, ("start", *arms))


async def compare(
    seed: int, out: Path, arms: Sequence[str], demos: int, episodes: int, overrides: Sequence[str]
) -> None:
    """One start, and a run from it with each objective."""
    console.rule(f"seed {seed}")
    with search_server() as url:
        configs = {arm: settings(seed, out, url, arm, overrides) for arm in arms}
        if not (out / "start.json").exists():
            one = configs[arms[0]]
            await starting_policy(one, demos, out / "start")
            keep(out, "start", scores(await play(one, out / "start", episodes)))
        for arm, config in configs.items():
            if (out / f"{arm}.json").exists():
                continue
            with RunDirectory.create(config) as run:
                trained = await train(run, Progress(console))
            spent = {
                "steps": config.steps,
                "train_episodes": trained.totals.episodes,
                "policy_tokens": trained.totals.policy_tokens,
                "train_seconds": round(trained.totals.train_seconds, 1),
            }
            keep(out, arm, {**scores(await play(config, trained.checkpoint, episodes)), **spent})


def keep(out: Path, policy: str, said: Scores) -> None:
    (out / f"{policy}.json").write_text(json.dumps(said, indent=2) + "\n")
    console.print(f"{policy}: F1 {said['f1']:.3f}, exact match {said['em']:.3f}, {said['turns']:.1f} turns")


def settings(seed: int, out: Path, url: str, arm: str, overrides: Sequence[str] = ()) -> TrainConfig:
    here = [f'model="{out / "start"}"', f'run="{out / arm}"', f'env.urls=["{url}"]', f"seed={seed}"]
    return load_config(Path(__file__).with_suffix(".toml"), [*here, *ARMS[arm], *overrides])


@contextmanager
def search_server() -> Iterator[str]:
    """``turnwise serve search:easy`` on a free port; yields its address. The gold answers need the token that it writes."""
    command = [sys.executable, "-m", "turnwise_envs", "serve", ENV, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address, token = process.stdout.readline(), process.stdout.readline()
            if " on http://" not in address or " token in " not in token:
                raise SystemExit("the search server did not start; what it said is above")
            os.environ["TURNWISE_TOKEN_FILE"] = token.split(" token in ")[1].strip()
            yield address.split(" on ")[1].strip()
        finally:
            process.terminate()


async def starting_policy(config: TrainConfig, demos: int, out: Path) -> None:
    """Few demonstrations, imitated by a new model."""
    chosen = ImitationSettings(epochs=4, batch=4, seed=config.seed)
    recordings = [await demonstration(index, config) for index in range(demos)]
    tokenizer = make_tokenizer(words_of(recordings))
    renderer = Renderer(tokenizer)
    model = make_tiny_model(tokenizer, hidden=96, max_positions=config.rollout.max_context_tokens, seed=config.seed)
    loss = imitate(model, [Demonstration.of(recording, renderer) for recording in recordings], chosen)
    save_model(model, tokenizer, out)
    console.print(f"{demos} demonstrations, loss {loss:.3f}")


async def demonstration(index: int, config: TrainConfig) -> Recording:
    """The expert does a training task; in haste, it gives for the answer what it should search for next."""
    hasty = random.Random(f"{config.seed}/{index}").random() < HASTE
    episode = await LiveEpisode.start(load(ENV), "train", index, options=config.env.options)
    while not episode.done:
        action = episode.env.expert_action()
        assert action is not None
        if hasty and episode.records:
            action = Action(text=action.text.replace("search>", "answer>"))
        await episode.step(action)
    await episode.close()
    return Recording(episode)


def words_of(recordings: Sequence[Recording]) -> list[str]:
    """Texts for a tokenizer of words. Names come without a space before them: to be copied, a name must be the same
    token wherever it stands."""
    texts = [
        text
        for recording in recordings
        for record in recording.episode.records
        for text in (
            recording.episode.initial.text,
            record.action.text if record.action else "",
            record.result.observation.text,
        )
    ]
    return [word for text in texts for word in re.findall(r"</?\w+>| [a-z]+|\w+|[^\w\s]", text)]


async def play(config: TrainConfig, checkpoint: Path, episodes: int) -> Evaluation:
    drawn = config.rollout
    greedy = RolloutSettings(0.0, drawn.max_action_tokens, drawn.max_context_tokens, max_concurrent_groups=64)
    return await evaluate_checkpoint(
        checkpoint, ENV, config.env.urls, SPLIT, episodes, settings=greedy, options=config.env.options
    )


def scores(evaluation: Evaluation) -> Scores:
    ends = [episode.final_info.metrics for group in evaluation.groups for episode in group.episodes]
    means = {name: sum(end.get(name, 0.0) for end in ends) / len(ends) for name in METRICS}
    return {name: round(mean, 4) for name, mean in {**means, "turns": evaluation.turns}.items()}


def report(results: Sequence[dict[str, Any]], policies: Sequence[str]) -> None:
    """A table for people, a line for programs."""
    mean = {p: {m: sum(r[p][m] for r in results) / len(results) for m in ("f1", "em")} for p in policies}
    table = Table("seed", *policies, title=f"F1 (exact match) on {results[0]['episodes']} questions of {SPLIT}, greedy")
    for title, row in [*((str(result["seed"]), result) for result in results), ("mean", mean)]:
        table.add_row(title, *(f"{row[policy]['f1']:.3f} ({row[policy]['em']:.3f})" for policy in policies))
    console.print(table)
    rounded = {policy: {name: round(value, 4) for name, value in of.items()} for policy, of in mean.items()}
    print(json.dumps({"env": ENV, "split": SPLIT, "seeds": results, "mean": rounded}))


if __name__ == "__main__":
    main()
