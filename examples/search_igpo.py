"""IGPO beside GRPO: a tiny policy learns to answer questions by searching, on a CPU.

For each seed, a policy of half a million parameters imitates few demonstrations of an expert, and answers questions about
worlds that it has never seen (start). From there it is trained once with each objective, on the same tasks with as many
steps, episodes and the same learning rate, and answers the same questions again. The two differ only in how turns are
paid: GRPO gives every turn of an episode the F1 of its answer, IGPO pays a search by how much more likely it makes the gold
answer to the policy, and the answer by its F1.

The last line is everything as one JSON object. A seed whose result lies in ``--out`` is not run again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
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
from turnwise_envs import load
from turnwise_trainer.config import TrainConfig
from turnwise_trainer.config import load as load_config
from turnwise_trainer.evaluation import Evaluation, evaluate_checkpoint
from turnwise_trainer.imitation import Demonstration, ImitationSettings, Recording, demonstrate, imitate
from turnwise_trainer.loop import train
from turnwise_trainer.models import make_tiny_model, make_tokenizer, save_model
from turnwise_trainer.progress import Progress
from turnwise_trainer.run_directory import RunDirectory

ENV = "search:easy"
#: Held out: other worlds than those of ``train``.
SPLIT, EPISODES = "valid", 400
DEMOS = 600
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
    parser.add_argument("--out", type=Path, default=Path("runs/search_igpo"))
    parser.add_argument("--demos", type=int, default=DEMOS, help="demonstrations; more make a better start")
    parser.add_argument("--episodes", type=int, default=EPISODES, help=f"questions of {SPLIT} to be answered")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change a training setting")
    arguments = parser.parse_args()
    results = []
    for seed in arguments.seed or [0, 1, 2]:
        out = arguments.out / f"seed-{seed}"
        if not (out / "result.json").exists():
            asyncio.run(compare(seed, out, arguments.demos, arguments.episodes, arguments.set))
        results.append(json.loads((out / "result.json").read_text()))
    report(results)


async def compare(seed: int, out: Path, demos: int, episodes: int, overrides: Sequence[str]) -> None:
    """One start, and a run from it with each objective."""
    console.rule(f"seed {seed}")
    with search_server() as url:
        configs = {arm: settings(seed, out, url, arm, overrides) for arm in ARMS}
        await starting_policy(configs["igpo"], demos, out / "start")
        result: dict[str, Any] = {"seed": seed, "demos": demos, "episodes": episodes}
        result["start"] = scores(await play(configs["igpo"], out / "start", episodes))
        console.print(f"start: {told(result['start'])}")
        for arm, config in configs.items():
            with RunDirectory.create(config) as run:
                trained = await train(run, Progress(console))
            result[arm] = scores(await play(config, trained.checkpoint, episodes))
            result[arm] |= {
                "steps": config.steps,
                "train_episodes": trained.totals.episodes,
                "policy_tokens": trained.totals.policy_tokens,
                "train_seconds": round(trained.totals.train_seconds, 1),
            }
            console.print(f"{arm}: {told(result[arm])}")
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


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
    chosen = ImitationSettings(demos=demos, epochs=4, batch=4, seed=config.seed)
    recordings = await demonstrate(load(ENV), chosen, config.env.options)
    tokenizer = make_tokenizer(words_of(recordings))
    renderer = Renderer(tokenizer)
    model = make_tiny_model(tokenizer, hidden=96, max_positions=config.rollout.max_context_tokens, seed=config.seed)
    loss = imitate(model, [Demonstration.of(recording, renderer) for recording in recordings], chosen)
    save_model(model, tokenizer, out)
    console.print(f"{demos} demonstrations, loss {loss:.3f}")


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


def told(said: Scores) -> str:
    return f"F1 {said['f1']:.3f}, exact match {said['em']:.3f}, {said['turns']:.1f} turns"


def report(results: Sequence[dict[str, Any]]) -> None:
    """A table for people, a line for programs."""
    policies = ("start", *ARMS)
    mean = {p: {m: sum(r[p][m] for r in results) / len(results) for m in ("f1", "em")} for p in policies}
    table = Table("seed", *policies, title=f"F1 (exact match) on {results[0]['episodes']} questions of {SPLIT}, greedy")
    for title, row in [*((str(result["seed"]), result) for result in results), ("mean", mean)]:
        table.add_row(title, *(f"{row[policy]['f1']:.3f} ({row[policy]['em']:.3f})" for policy in policies))
    console.print(table)
    rounded = {policy: {name: round(value, 4) for name, value in of.items()} for policy, of in mean.items()}
    print(json.dumps({"env": ENV, "split": SPLIT, "seeds": results, "mean": rounded}))


if __name__ == "__main__":
    main()
