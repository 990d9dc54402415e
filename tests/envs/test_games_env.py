"""Other people's games as our environments: text in, text out, worlds by index, chance by seed, experts that win."""

from __future__ import annotations

import random

import pytest
from playing import play

from turnwise_envs import UnknownEnvironment, registry
from turnwise_envs.check import check_env
from turnwise_envs.plugins.foreign import OwnChance, meant
from turnwise_envs.plugins.screen import plain


def test_a_picture_in_colour_becomes_text():
    assert plain("\n\x1b[41mS\x1b[0mFF\nFHF\n\n") == 'SFF\nFHF\nIn colour: "S" in row 1, column 1 (red background).'
    both = "|\x1b[34;1m\x1b[43mB\x1b[0m\x1b[0m: |\x1b[2K\n  (South)\n"
    assert plain(both) == '|B: |\nIn colour: "B" in row 1, column 2 (blue on yellow).'
    assert plain("a  b\n c") == "a  b\n c"


def test_actions_are_named_or_numbered():
    names = ("left", "push right")
    assert [meant(said, names) for said in ("LEFT", "I go\n`Push  Right`.", "1", "2", "", "<think>left</think>x")] == [
        0,
        1,
        1,
        None,
        None,
        None,
    ]


def test_global_chance_is_an_episodes_own():
    random.seed(5)
    expected = [random.random() for _ in range(2)]
    random.seed(5)
    one, other = OwnChance("a"), OwnChance("a")
    drawn = []
    for chance in (one, other, other, one):
        with chance:
            drawn.append(random.random())
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
    assert [random.random() for _ in range(2)] == expected


def test_numpys_too():
    numpy = pytest.importorskip("numpy")
    numpy.random.seed(5)
    expected = list(numpy.random.random(2))
    numpy.random.seed(5)
    one, other = OwnChance("a"), OwnChance("a")
    drawn = []
    for chance in (one, other, other, one):
        with chance:
            drawn.append(numpy.random.random())
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
    assert list(numpy.random.random(2)) == expected


class TestGymnasium:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("gymnasium")

    def test_frozen_lake(self):
        solid = {"make": '{"is_slippery": false}'}
        episode, results = play("gymnasium:FrozenLake-v1", **solid)
        assert episode.initial.text.endswith(
            "Each turn, write one action on the last line: left, down, right, up.\n\n"
            'SFFF\nFHFH\nFFFH\nHFFG\nIn colour: "S" in row 1, column 1 (red background).'
        )
        assert episode.initial.admissible_actions == ["left", "down", "right", "up"]
        assert [record.action.text for record in episode.records] == ["down", "down", "right", "down", "right", "right"]
        assert results[0].observation.text.endswith('"F" in row 2, column 1 (red background).')
        assert (results[-1].reward, results[-1].info.end) == (1.0, "solved")
        assert results[-1].info.metrics == {"success": 1.0, "return": 1.0}
        _, results = play("gymnasium:FrozenLake-v1", ["left", "down", "right"], **solid)
        assert [r.info.action_effective for r in results] == [False, True, True]
        assert (results[-1].terminated, results[-1].info.end) == (True, "failed")

    def test_the_index_fixes_the_world_and_the_seed_the_chance(self):
        def starts(index):
            return play("gymnasium:Taxi-v4", ["south"], index=index)[0].initial.text

        def slides(seed):
            return [r.observation.text for r in play("gymnasium:FrozenLake-v1", ["right"] * 6, seed=seed)[1]]

        assert starts(1) == starts(1) != starts(2)
        assert slides(3) == slides(3)
        assert len({tuple(slides(seed)) for seed in range(4)}) > 1
        maps = {
            play("gymnasium:FrozenLake-v1", ["up"], index=i, make='{"map_name": null}')[0].initial.text
            for i in range(3)
        }
        assert len(maps) == 3

    def test_taxi_in_words(self):
        episode, results = play("gymnasium:Taxi-v4", index=1, render="values")
        assert episode.initial.text.splitlines()[-1].startswith(
            "taxi in row 2, column 2; passenger at B (blue); destination R"
        )
        assert [record.action.text for record in episode.records].count("pickup") == 1
        assert (results[-1].reward, results[-1].info.end) == (20.0, "solved")
        assert sum(r.reward for r in results) == results[-1].info.metrics["return"] == 9.0

    def test_mistakes_teach(self):
        _, (result,) = play("gymnasium:CliffWalking-v1", ["jump"])
        assert (
            result.observation.text
            == "'jump' is not an action. Each turn, write one action on the last line: up, right, down, left."
        )
        assert (result.info.action_valid, result.observation.admissible_actions) == (
            False,
            ["up", "right", "down", "left"],
        )

    def test_names_given_by_the_user(self):
        episode, results = play("gymnasium:Blackjack-v1", ["card", "Enough."], actions="enough,card")
        assert episode.initial.admissible_actions == ["enough", "card"]
        assert results[-1].terminated

    @pytest.mark.parametrize(
        ("id", "arguments", "words"),
        [
            ("NoSuchGame-v0", {}, "NoSuchGame"),
            ("Pendulum-v1", {}, "actions must be discrete or text, not Box"),
            ("CartPole-v1", {"render": "ansi"}, "CartPole-v1 draws no text .*--render values"),
            ("CartPole-v1", {"render": "poem"}, "--render is auto, ansi, values"),
            ("CartPole-v1", {"actions": "a,b,c"}, "--actions must name 2 different actions, not 3"),
            ("CartPole-v1", {"make": "[1]"}, "--make is a JSON object"),
        ],
    )
    def test_what_cannot_be_is_said(self, id, arguments, words):
        with pytest.raises(UnknownEnvironment, match=words):
            registry.load(f"gymnasium:{id}", arguments)

    def test_it_keeps_the_contract(self):
        report = check_env(registry.load("gymnasium:FrozenLake-v1"), episodes=1)
        assert report.ok, report


class TestReasoningGym:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("reasoning_gym")

    @pytest.mark.parametrize("name", ["leg_counting", "chain_sum", "basic_arithmetic", "word_sorting", "maze"])
    def test_the_gold_answer_is_right_and_another_is_not(self, name):
        episode, (right,) = play(f"reasoning-gym:{name}", index=3)
        assert (right.reward, right.info.end, right.info.metrics) == (1.0, "solved", {"score": 1.0, "success": 1.0})
        gold = registry.load(f"reasoning-gym:{name}").tasks.reference(episode.task).answers
        assert episode.records[0].action.text == f"<answer>{gold[0]}</answer>"
        _, (wrong,) = play(f"reasoning-gym:{name}", ["<answer>zebra</answer>"], index=3)
        assert (wrong.reward < 0.1, wrong.info.end) == (True, "failed")

    def test_a_partial_score_is_paid_and_not_solved(self):
        """reasoning-gym's usual scorer pays an answer with more in it by the gold answer's share of the characters."""
        gold = registry.load("reasoning-gym:leg_counting").tasks.reference(play("reasoning-gym:leg_counting")[0].task)
        longer = f"{gold.answers[0]} legs"
        _, (result,) = play("reasoning-gym:leg_counting", [f"<answer>{longer}</answer>"])
        assert result.reward == pytest.approx(len(gold.answers[0]) / len(longer))
        assert (result.info.end, result.info.metrics) == ("failed", {"score": result.reward, "success": 0.0})
        assert result.observation.text == f"That is not right (score {result.reward:.2f})."

    def test_no_tag_is_no_answer(self):
        _, (result,) = play("reasoning-gym:leg_counting", ["<think><answer>4</answer></think> four"])
        assert (result.reward, result.info.action_valid, result.terminated) == (0.0, False, True)
        assert "There was no <answer>" in result.observation.text

    def test_settings_and_splits(self):
        few = registry.load("reasoning-gym:leg_counting", {"config": '{"min_animals": 1, "max_animals": 1}'})
        assert " and " not in few.tasks.get("train", 0).instruction
        assert few.tasks.get("train", 0).instruction != few.tasks.get("valid", 0).instruction
        with pytest.raises(UnknownEnvironment, match="did you mean leg_counting"):
            registry.load("reasoning-gym:leg_countin")
        with pytest.raises(UnknownEnvironment, match=r"--config.*legs"):
            registry.load("reasoning-gym:leg_counting", {"config": '{"legs": 1}'})


class TestTextArena:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("textarena")

    def test_guess_the_number(self):
        episode, _ = play("textarena:GuessTheNumber-v0", ["[10]"], index=1)
        secret = int(registry.load("textarena:GuessTheNumber-v0").tasks.reference(episode.task).answers[0])
        assert secret == 5
        others = [
            registry.load("textarena:GuessTheNumber-v0").tasks.reference(start[0].task)
            for start in (play("textarena:GuessTheNumber-v0", ["[10]"], index=i) for i in range(2, 6))
        ]
        assert len({other.answers[0] for other in others}) > 1
        _, (low, wrong, right) = play("textarena:GuessTheNumber-v0", ["<think>[5]</think>[10]", "hmm", "5"], index=1)
        assert (low.observation.text, low.reward) == ("The target number is lower.", 0.0)
        assert (wrong.info.action_valid, "invalid move" in wrong.observation.text) == (False, True)
        assert (right.reward, right.info.end) == (1.0, "solved")

    def test_a_random_opponent_plays_legal_moves(self):
        def marks(seed):
            _, results = play("textarena:TicTacToe-v0", [f"[{i}]" for i in range(9)], seed=seed)
            assert results[0].observation.text.count("placed their symbol") == 2
            return [r.observation.text for r in results]

        assert marks(1) == marks(1)
        assert len({tuple(marks(seed)) for seed in range(4)}) > 1
        _, results = play("textarena:ConnectFour-v0", ["[col 1]"] * 4, seed=1)
        assert results[0].observation.text.count("dropped their disk") == 2

    def test_the_second_seat_waits_for_the_first_move(self):
        episode, _ = play("textarena:TicTacToe-v0", ["[0]"], seat="1")
        assert episode.initial.text.count("placed their symbol (O)") == 1

    def test_what_cannot_be_is_said(self):
        with pytest.raises(UnknownEnvironment, match="did you mean TicTacToe-v0"):
            registry.load("textarena:TicTacTo-v0")
        with pytest.raises(UnknownEnvironment, match="more than two players"):
            registry.load("textarena:ThreePlayerTicTacToe-v0")
        with pytest.raises(UnknownEnvironment, match="name some, such as --moves"):
            registry.load("textarena:Nim-v0")
