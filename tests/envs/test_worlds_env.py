"""ScienceWorld and TextWorld as environments: their own experts win, their own splits, mistakes teach."""

from __future__ import annotations

import re
import shutil

import pytest
from playing import play

from turnwise_envs import UnknownEnvironment, registry


class TestScienceWorld:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("scienceworld")
        if shutil.which("java") is None:
            pytest.skip("needs PROGRAM: java")

    @pytest.mark.slow
    def test_the_gold_path_earns_everything(self):
        episode, results = play("scienceworld:boil", index=1)
        assert episode.initial.text.startswith("Your task is to boil water.")
        assert {"look around", "inventory", "wait"} <= set(episode.initial.admissible_actions)
        assert episode.records[0].action.text == "open door to hallway"
        assert results[-1].info.end == "solved"
        assert results[-1].info.metrics == {"score": 1.0, "success": 1.0}
        assert sum(r.reward for r in results) == pytest.approx(1.0)

    @pytest.mark.slow
    def test_the_same_commands_twice_give_the_same_bytes(self):
        """One after the other: left alone, Java orders the simulator's sets by random numbers, and episodes side by side
        share a generator, so it is not promised."""
        said = ["look around", "open door to hallway", "go to hallway", "look around"]
        one, other = (play("scienceworld:find-animal", said, index=1)[0] for _ in range(2))
        assert not registry.load("scienceworld:find-animal").spec.deterministic
        assert one.log_hash == other.log_hash

    @pytest.mark.slow
    def test_mistakes_teach(self):
        _, (unknown, silent, wrong) = play("scienceworld:melt", ["juggle", "", "focus on agent"])
        assert (unknown.info.action_valid, "No known action" in unknown.observation.text) == (False, True)
        assert (silent.info.action_valid, silent.observation.text) == (False, "Nothing was said.")
        assert (wrong.terminated, wrong.info.end, wrong.info.metrics["score"]) == (True, "failed", 0.0)

    def test_what_cannot_be_is_said(self, monkeypatch):
        with pytest.raises(UnknownEnvironment, match="did you mean boil"):
            registry.load("scienceworld:boi")
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(UnknownEnvironment, match="needs Java"):
            registry.load("scienceworld:freeze")


class TestTextWorld:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("textworld")

    def test_what_cannot_be_is_said(self, tmp_path):
        with pytest.raises(UnknownEnvironment, match="there is no game at"):
            registry.load(f"textworld:{tmp_path}")
        (tmp_path / "story.txt").write_text("Once upon a time")
        with pytest.raises(UnknownEnvironment, match="is no game: games are files"):
            registry.load(f"textworld:{tmp_path / 'story.txt'}")

    @pytest.mark.slow
    def test_what_cannot_be_typed_is_left_out(self, tmp_path, monkeypatch):
        """A null character once reached the interpreter, which then waited for ever."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        hostile = ["look", "lo\x00ok", "\x07l\xf6ok\x1b", "\x00", "\U0001f4a5", "\ufdfa" * 300, "x" * 1000]
        _, results = play("textworld", hostile, rooms="2", objects="3", quest_length="2")
        look, *same = [result.observation.text for result in results[:3]]
        assert [re.sub(r"\d", "", text) for text in same] == [re.sub(r"\d", "", look)] * 2
        assert len(results) == len(hostile)
