"""IGPO: its numbers by hand, on trees and flat, and whole runs of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GroupBuilder
from numpy.testing import assert_allclose
from serving import Server
from typer.testing import CliRunner
from word_worlds import served, settings, train_command, write_policy

from turnwise_agent.probing import PAPER_TEMPLATE, AnswerProbe
from turnwise_agent.trajectory import Group
from turnwise_envs import cli
from turnwise_trainer.errors import ConfigError, ObjectiveError
from turnwise_trainer.objective import Objective
from turnwise_trainer.objectives.igpo import InfoGain, Outcome, TurnReturns, info_gain, outcome, turn_returns
from turnwise_trainer.view import BatchView


def chain(builder: GroupBuilder, beliefs: Sequence[float], outcome: float, parent: int | None = None) -> None:
    """An episode whose turns were probed with these mean log-probs, over two answer tokens each."""
    leaf = parent
    for belief in beliefs:
        leaf = builder.turn(leaf, [0.5], answer=(belief - 0.3, belief + 0.3))
    assert leaf is not None
    builder.episode(leaf, outcome)


def of(beliefs: Sequence[Sequence[float]], outcomes: Sequence[float], index: int = 0) -> Group:
    builder = GroupBuilder(index)
    for steps, result in zip(beliefs, outcomes, strict=True):
        chain(builder, steps, result)
    return builder.build()


#: Rollout 1 has the gains .5 and -.1 and the outcome 1; rollout 2 has the gain .2 and the outcome 0.
EXAMPLE = of([[-2.0, -1.5, -1.6], [-2.0, -1.8]], [1.0, 0.0])


class TestInfoGain:
    def test_example(self) -> None:
        builder = GroupBuilder()
        leaf = None
        for answer in ([-2.0, -1.0], [-1.0, -0.5], [-1.2, -0.6]):
            leaf = builder.turn(leaf, [0.5], answer=answer)
        assert leaf is not None
        builder.episode(leaf, 1.0)
        view = BatchView.of([builder.build()])
        assert_allclose(info_gain(view, InfoGain()), [0.75, -0.15, 0.0], atol=1e-12)
        assert_allclose(info_gain(view, InfoGain(difference="prob")), [0.24924, -0.06580, 0.0], atol=1e-5)
        assert_allclose(info_gain(view, InfoGain(weight=2.0)), [1.5, -0.3, 0.0], atol=1e-12)

    def test_gains_stay_within_their_episode(self) -> None:
        assert_allclose(info_gain(BatchView.of([EXAMPLE]), InfoGain()), [0.5, -0.1, 0.0, 0.2, 0.0], atol=1e-12)

    def test_turns_that_were_not_probed(self) -> None:
        builder = GroupBuilder()
        builder.episode(builder.turn(builder.turn(None, [0.5], answer=[-1.0]), [0.5]))
        with pytest.raises(ObjectiveError, match=r"info_gain: turns without answer_logprobs; draw them with"):
            info_gain(BatchView.of([builder.build()]), InfoGain())

    def test_outcome_is_all_that_was_earned_on_the_last_turn(self) -> None:
        builder = GroupBuilder()
        builder.episode(builder.turn(builder.turn(None, [0.5], reward=0.25), [0.5], reward=0.5), outcome=2.0)
        builder.episode(builder.turn(None, [0.5], reward=-1.0))
        assert outcome(BatchView.of([builder.build()]), Outcome(weight=2.0)).tolist() == [0.0, 5.5, -2.0]


class TestTurnReturns:
    reward_S = np.array([0.5, -0.1, 1.0, 0.2, 0.0])

    @pytest.mark.parametrize(
        ("gamma", "normalise", "returns"),
        [
            (1.0, "separate", [1.0, -0.2247, 1.0, -1.0, -1.0]),
            (0.5, "separate", [0.8624, -0.7247, 1.0, -0.5, -1.0]),
            (1.0, "joint", [1.10834, 0.65493, 1.71289, -1.10834, -0.80607]),
            (0.0, "separate", [1.22474, -1.22474, 1.0, 0.0, -1.0]),
            (0.0, "joint", [0.45341, -1.05796, 1.71289, -0.30227, -0.80607]),
        ],
    )
    def test_example(self, gamma: float, normalise: Any, returns: list[float]) -> None:
        """The gain of .2 is the mean, so its z is 0: it still is a turn of its own."""
        found_S = turn_returns(BatchView.of([EXAMPLE]), self.reward_S, TurnReturns(gamma=gamma, normalise=normalise))
        assert_allclose(found_S, returns, atol=1e-4)

    def test_groups_are_normalised_apart(self) -> None:
        other = of([[-1.0, -1.0], [-1.0, -1.0]], [5.0, 5.0], index=1)
        reward_S = np.append(self.reward_S, [0.0, 5.0, 0.0, 5.0])
        returns_S = turn_returns(BatchView.of([EXAMPLE, other]), reward_S, TurnReturns())
        assert_allclose(returns_S, [1.0, -0.2247, 1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.0], atol=1e-4)

    def test_a_reward_that_is_alone_says_nothing(self) -> None:
        view = BatchView.of([of([[-2.0, -1.0]], [1.0])])
        assert turn_returns(view, np.array([1.0, 1.0]), TurnReturns()).tolist() == [0.0, 0.0]
        joint = turn_returns(view, np.array([0.0, 1.0]), TurnReturns(normalise="joint"))
        assert_allclose(joint, [0.0, 1.0], atol=1e-4)


class TestPreset:
    def test_credit(self) -> None:
        credit = Objective.resolve("igpo").credit(BatchView.of([EXAMPLE]))
        assert_allclose(credit.advantage_K, [1.0, -0.2247, 1.0, -1.0, -1.0], atol=1e-4)
        assert credit.metrics["reward/info_gain"] == pytest.approx(0.3)  # .4 and .2, a mean over two episodes
        assert credit.metrics["reward/outcome"] == pytest.approx(0.5)

    def test_a_tree_is_worth_what_its_episodes_are(self) -> None:
        """A shared turn counts once per episode, as if it had been drawn for each."""
        tree = GroupBuilder()
        shared = tree.turn(None, [0.5, 0.5], answer=[-2.0])
        for beliefs, result in (([-1.5, -1.0], 1.0), ([-1.9], 0.0)):
            chain(tree, beliefs, result, parent=shared)
        flat = GroupBuilder()
        for beliefs, result in (([-1.5, -1.0], 1.0), ([-1.9], 0.0)):
            chain(flat, beliefs, result, parent=flat.turn(None, [0.5, 0.5], answer=[-2.0]))
        ours, theirs = (Objective.resolve("igpo").credit(BatchView.of([b.build()])) for b in (tree, flat))
        assert_allclose(ours.advantage_K, theirs.advantage_K, atol=1e-12)
        for name in ("outcome", "info_gain"):
            assert_allclose(ours.rewards_S[name], theirs.rewards_S[name], atol=1e-12)

    def test_is_the_papers(self) -> None:
        table = Objective.resolve("igpo").spec.table()
        assert table["loss"]["aggregation"] == "seq-mean-token-mean"
        assert table["advantage"] == {"name": "turn_returns", "gamma": 1.0, "normalise": "separate", "epsilon": 1e-6}
        assert [(term["name"], term["coefficient"]) for term in table["regularizers"]] == [("kl", 0.001)]

    def test_the_probe(self) -> None:
        assert Objective.resolve("grpo").answer_probe() is None
        assert Objective.resolve("igpo").answer_probe() == AnswerProbe(PAPER_TEMPLATE)
        said = {"preset": "igpo", "rewards": {"info_gain": {"template": "{answer}!"}}}
        assert Objective.resolve(said).answer_probe() == AnswerProbe("{answer}!")
        with pytest.raises(ConfigError, match=r"objective\.rewards\.info_gain\.template: must have \{answer\} in it"):
            Objective.resolve({"preset": "igpo", "rewards": {"info_gain": {"template": "no"}}})


RUN = {"objective": "igpo", "objective.rewards.info_gain.template": '"{answer}"', "env.options.turns": 3, "steps": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("igpo"), "Bandit", "Mute") as server:
        yield server


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy") / "policy")


def train(server: Server, policy: Path, run: Path, token_file: Path | None, **changes: Any) -> Any:
    arguments = train_command(*settings(server.url, policy, run, **{**RUN, **changes}))[1:]
    env = {"COLUMNS": "200", "TURNWISE_TOKEN": None, "TURNWISE_TOKEN_FILE": token_file and str(token_file)}
    return CliRunner().invoke(cli.app, arguments, env=env)


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "train"]


class TestRuns:
    @pytest.mark.parametrize("sampling", ["independent", "arpo"])
    def test_end_to_end(self, server: Server, policy: Path, tmp_path: Path, sampling: str) -> None:
        changes = {"objective.sampling": sampling, **({"objective.sampling.base": 1.0} if sampling == "arpo" else {})}
        result = train(server, policy, tmp_path / "run", server.token_file, **changes)
        assert result.exit_code == 0, result.output
        rows = rows_of(tmp_path / "run")
        assert len(rows) == 2
        assert all(row["optimizer/grad_norm"] > 0 and row["reward/info_gain"] != 0 for row in rows)
        assert max(row["logprob_gap_max"] for row in rows) < 1e-4
        with sqlite3.connect(tmp_path / "run" / "trajectories.db") as db:
            kept = [json.loads(text) for (text,) in db.execute("SELECT answer_logprobs FROM turns")]
        assert {len(values) for values in kept} == {1}  # "b" is one token
        assert all(-20 < value < 0 for (value,) in kept)

    def test_without_the_trainers_token(self, server: Server, policy: Path, tmp_path: Path) -> None:
        result = train(server, policy, tmp_path / "run", None)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("turnwise: GET /v1/sessions/")
        assert "this needs a token with scope 'trainer'" in line
        assert "Set TURNWISE_TOKEN_FILE" in line

    def test_an_environment_without_answers(self, server: Server, policy: Path, tmp_path: Path) -> None:
        result = train(server, policy, tmp_path / "run", server.token_file, **{"env.id": "mute"})
        (line,) = result.stderr.splitlines()
        assert line.startswith("turnwise: the Reference of mute/train/")

    @pytest.mark.slow
    def test_success_rises(self, server: Server, policy: Path, tmp_path: Path) -> None:
        changes = {
            "steps": 12,
            "env.options.turns": 2,
            "rollout.group_size": 6,
            "rollout.deterministic": True,
            "optimizer.minibatches": 1,
        }
        result = train(server, policy, tmp_path / "run", server.token_file, **changes)
        assert result.exit_code == 0, result.output
        success = [row["success"] for row in rows_of(tmp_path / "run")]
        assert sum(success[:3]) / 3 < 0.6
        assert sum(success[-3:]) / 3 > 0.9
