"""``examples/search_igpo.py`` works: both objectives train from the same start, and differ only in how turns are paid."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from turnwise_trainer.models import make_tokenizer
from turnwise_trainer.settings import plain

SCRIPT = Path(__file__).parents[2] / "examples" / "search_igpo.py"
SMALL = [
    "--demos=12",
    "--episodes=6",
    "--set=steps=2",
    "--set=rollout.groups_per_step=2",
    "--set=rollout.group_size=4",
    "--set=optimizer.minibatches=1",
    "--set=optimizer.warmup_steps=0",
]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("search_igpo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_objectives_differ_in_rewards_and_advantage_alone(example: ModuleType, tmp_path: Path) -> None:
    one, other = (plain(example.settings(0, tmp_path, "http://127.0.0.1:1", arm)) for arm in ("grpo", "igpo"))
    assert {key for key in one if one[key] != other[key]} == {"run", "objective"}
    slots = {slot for slot in one["objective"] if one["objective"][slot] != other["objective"].get(slot)}
    assert slots == {"preset", "rewards", "advantage"}


async def test_a_name_is_the_same_token_wherever_it_stands(example: ModuleType, tmp_path: Path) -> None:
    config = example.settings(0, tmp_path, "http://127.0.0.1:1", "igpo")
    tokenizer = make_tokenizer(example.words_of([await example.demonstration(index, config) for index in range(40)]))
    texts = "Who was the teacher of Ola?", "<search>Ola</search>", "(Title: Ola) Ola home Jura.", "<answer>Ola</answer>"
    pieces = [tokenizer.convert_ids_to_tokens(tokenizer.encode(text)) for text in texts]
    assert [row.count("Ola") for row in pieces] == [1, 1, 2, 1]


async def test_haste_fails_where_two_lookups_are_needed(example: ModuleType, tmp_path: Path) -> None:
    config = example.settings(0, tmp_path, "http://127.0.0.1:1", "igpo")
    episodes = [(await example.demonstration(index, config)).episode for index in range(60)]
    by_hops: dict[int, list[bool]] = {1: [], 2: []}
    for episode in episodes:
        by_hops[episode.task.metadata["hops"]].append(episode.records[-1].result.info.end == "solved")
        assert episode.records[-1].result.terminated
    assert all(by_hops[1])
    # 0.4 of about thirty: a standard deviation is 0.09.
    assert 0.13 < sum(by_hops[2]) / len(by_hops[2]) < 0.67


@pytest.mark.slow
def test_a_seed_is_run_once_and_reported(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--seed=3", f"--out={tmp_path}", *SMALL]
    first = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    said = json.loads(first.stdout.splitlines()[-1])
    (result,) = said["seeds"]
    assert (result["seed"], result["demos"], result["episodes"]) == (3, 12, 6)
    for arm in ("grpo", "igpo"):
        assert (result[arm]["steps"], result[arm]["train_episodes"]) == (2, 16)
        assert said["mean"][arm]["f1"] == result[arm]["f1"]
        (metrics,) = [
            json.loads(line)
            for line in (tmp_path / "seed-3" / arm / "metrics.jsonl").read_text().splitlines()
            if json.loads(line)["step"] == 2
        ]
        assert ("reward/info_gain" in metrics) == (arm == "igpo")
    assert all(0.0 <= result[policy]["f1"] <= 1.0 for policy in ("start", "grpo", "igpo"))
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert "demonstrations" in first.stdout
    assert "demonstrations" not in again.stdout
