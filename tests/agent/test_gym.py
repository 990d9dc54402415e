"""The Gymnasium view, checked by Gymnasium against a real server."""

import gc
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from remote_world import served

from turnwise_agent.errors import AgentError, InvalidRequest, SessionDone
from turnwise_agent.gym import RemoteEnv
from turnwise_envs.outward.texts import MAX_ACTION, UnicodeText


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tmp_path_factory.mktemp("state"), "Ledger", "Toolbox") as server:
        yield server.url


@pytest.fixture
def env(url):
    env = RemoteEnv("ledger", url, render_mode="ansi")
    yield env
    env.close()


def test_gymnasium_finds_nothing_to_say(url):
    env = gymnasium.make("turnwise_agent.gym:turnwise/Remote-v0", env="ledger", servers=url)
    gc.collect()  # what other tests left lying about is no fault of ours
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()
    env.close()


def test_an_episode(env):
    observation, info = env.reset(seed=0, options={"index": 3})
    assert observation == env.render() == "Ledger 3. Speak, or stop. ☃"
    assert observation in env.observation_space
    assert (info["task_id"], info["turn"], info["end"], info["metrics"]) == ("ledger/train/3", 0, None, {})
    observation, reward, terminated, truncated, info = env.step("snowman ☃")
    assert observation.startswith("9 characters")
    assert (reward, terminated, truncated, info["turn"]) == (0.0, False, False, 1)
    assert info["admissible_actions"] == ["stop"]
    *_, before = env.step("x")
    observation, reward, terminated, truncated, info = env.step("stop")
    assert (reward, terminated, truncated) == (14.0, True, False)
    assert (info["end"], info["metrics"]) == ("solved", {"count": 14.0})
    assert info["log_hash"] != before["log_hash"]
    with pytest.raises(SessionDone):
        env.step("more")


def test_the_turn_limit_truncates(env):
    env.reset(seed=0)
    results = [env.step("go") for _ in range(40)]
    assert [truncated for _, _, _, truncated, _ in results] == [False] * 39 + [True]
    assert results[-1][1] == 40.0
    assert results[-1][4]["end"] == "max_turns"


def test_seeds(env):
    def run(**reset):
        _, info = env.reset(**reset)
        return info["task_id"], env.step("go")[0]

    first, second = run(seed=5), run()
    assert first != second
    assert (run(seed=5), run()) == (first, second)
    expected = np.random.default_rng(5).integers(1000)
    assert first[0] == f"ledger/train/{expected}"
    # The seed is the session's own: the same task with another seed makes another noise.
    same_task = {"options": {"index": int(expected)}}
    assert run(seed=5, **same_task) == first
    assert run(seed=6, **same_task)[0] == first[0]
    assert run(seed=6, **same_task)[1] != first[1]


def test_splits_and_options(env, url):
    _, info = env.reset(seed=0, options={"split": "open", "options": {"start": 7}})
    assert info["task_id"].startswith("ledger/open/")
    assert env.step("x")[0].startswith("8 characters")
    other = RemoteEnv("ledger", url, split="open", options={"start": 100})
    other.reset(options={"index": 2**40})
    assert other.step("x")[0].startswith("101 characters")
    other.reset(options={"index": 1, "options": {"start": 1}})
    assert other.step("x")[0].startswith("2 characters")
    other.close()


def test_what_cannot_be(env, url):
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("go")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.render()
    with pytest.raises(AgentError, match=r"no option 'indx'; it has: index, split, options"):
        env.reset(options={"indx": 3})
    with pytest.raises(AgentError, match=r"no split 'dev'; it has: train, open"):
        env.reset(options={"split": "dev"})
    with pytest.raises(InvalidRequest):
        env.reset(options={"index": 1000})
    with pytest.raises(AgentError, match="wants tool calls"):
        RemoteEnv("toolbox", url)
    with pytest.raises(InvalidRequest, match="unknown-env"):
        RemoteEnv("nothing", url)
    with pytest.raises(AgentError, match="ansi"):
        RemoteEnv("ledger", url, render_mode="human")


def test_the_space_of_texts():
    space = UnicodeText(5)
    assert all(text in space for text in ("", "abcde", "日本☃\n\t", "e\u0301"))
    assert all(text not in space for text in ("abcdef", "\ud800", 5, None, b"abc"))
    assert space == UnicodeText(5) != UnicodeText(6)
    action = UnicodeText(MAX_ACTION)
    action.seed(0)
    assert all(action.sample() in action for _ in range(5))
