"""Groups drawn from a real server process: by scripts, where every word is known, and by a tiny model."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import httpx
import pytest
from remote_world import served
from rollout_worlds import Talk
from tiny_models import distribution, tiny, trie_size
from waiting import PATIENCE, eventually

from turnwise_agent.branching import EntropyBranching
from turnwise_agent.client import TurnwiseClient
from turnwise_agent.engines.local import LocalEngine
from turnwise_agent.engines.scripted import ScriptedEngine
from turnwise_agent.errors import RolloutError
from turnwise_agent.renderer import Renderer
from turnwise_agent.rollout import MAX_REDRAWS, RolloutEngine, RolloutSettings, TaskDraw
from turnwise_agent.trajectory import StopReason
from turnwise_envs import load
from turnwise_envs.episode import LiveEpisode
from turnwise_trainer.models import make_tokenizer

WORDS = ["go to fridge 1", "take apple 1 from countertop 2", "look", "You are in the middle of a room. Talk word Bye"]
TOKENIZER = make_tokenizer(WORDS * 3, 330)
RENDERER = Renderer(TOKENIZER)
SETTINGS = RolloutSettings(max_action_tokens=24, max_context_tokens=400)
ALWAYS = EntropyBranching(initial_fraction=0.25, base=0.6)  # scripts have no entropy, and 0.6 > 0.5


class Seeded:
    """Says what ``script(member, attempt, turn)`` says, each time after a pause of its own."""

    def __init__(self, script, pauses=0):
        self.script = script
        self.pauses = random.Random(pauses)
        self.contexts = []

    async def generate(self, prompt_ids, sampling, parent=None):
        await asyncio.sleep(self.pauses.random() * 0.01)
        self.contexts.append(TOKENIZER.decode(list(parent or ()) + list(prompt_ids)))
        said = RENDERER.action_ids(self.script(*sampling.seed[-3:]))
        return await ScriptedEngine(lambda context: said).generate(prompt_ids, sampling, parent)


def babble(member, attempt, turn):
    """Different words wherever it is asked, and ends at different times."""
    return "stop" if turn == 2 + member % 3 else f"w{random.Random(f'{member} {attempt} {turn}').randrange(10**6)}"


def four_turns(member, attempt, turn):
    return ["go", "look", "take", "stop"][turn]


def draw(index=0, size=4, key=(5,), **options):
    return TaskDraw("train", index, size, key, options=options)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("state")
    with served(home, "rollout_worlds:Talk", "rollout_worlds:Stumbles", "household") as server:
        yield server


@pytest.fixture
async def client(server):
    async with TurnwiseClient(server.url, patience=PATIENCE) as client:
        yield client


@pytest.fixture
async def drive(client):
    async def one(engine, env="talk", settings=SETTINGS, **more):
        return RolloutEngine(client, engine, RENDERER, await client.spec(env), settings, **more)

    return one


async def live_sessions(server):
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        answer = await http.get("/v1/sessions", params={"status": "live", "limit": 100})
    return [item["session_id"] for item in answer.raise_for_status().json()["items"]]


def said(group):
    return [[turn.action.text for turn in path] for path in group.paths()]


def contexts(group):
    """What the policy had read and written at the end of each episode, from the last new context on."""
    for path in group.paths():
        start = max(turn.index for turn in path if turn.new_context)
        yield tuple(token for turn in path[start:] for token in (*turn.prompt_ids, *turn.action_ids))


class TestIndependent:
    async def test_an_episode(self, drive, server):
        engine, seen = Seeded(four_turns), []
        (group,) = await (await drive(engine, on_turn=seen.append)).draw([draw(3, size=1)])
        (episode,) = group.episodes
        path = group.path(episode)
        assert said(group) == [["go", "look", "take", "stop"]]
        assert [turn.reward for turn in path] == [0.2, 0.4, 0.4, 0.4]
        assert [turn.index for turn in path] == [turn.id for turn in path] == [0, 1, 2, 3]
        assert [turn.parent for turn in path] == [None, 0, 1, 2]
        assert [turn.new_context for turn in path] == [True, False, False, False]
        assert [turn.observation.text for turn in path] == ["1: go", "2: look", "3: take", "Bye."]
        assert [turn.terminated for turn in path] == [False, False, False, True]
        assert (episode.stop, episode.solved, episode.final_reward) == (StopReason.TERMINATED, True, 0.0)
        assert group.outcome(episode) == pytest.approx(1.4)
        assert (group.task.id, group.initial.text, group.dropped) == ("talk/train/3", "Talk 3.", 0)
        assert episode.log_hash == path[-1].log_hash
        assert engine.contexts == [
            "<|user|>Talk 3.<|assistant|>",
            "<|user|>Talk 3.<|assistant|>go<|end|><|user|>1: go<|assistant|>",
            "<|user|>Talk 3.<|assistant|>go<|end|><|user|>1: go<|assistant|>look<|end|><|user|>2: look<|assistant|>",
            "<|user|>Talk 3.<|assistant|>go<|end|><|user|>1: go<|assistant|>look<|end|><|user|>2: look<|assistant|>"
            "take<|end|><|user|>3: take<|assistant|>",
        ]
        assert TOKENIZER.decode(next(contexts(group))) == engine.contexts[-1] + "stop<|end|>"
        assert [turn.action.text for turn in seen] == ["go", "look", "take", "stop"]
        assert await live_sessions(server) == []

    async def test_groups_do_not_depend_on_who_is_first(self, drive):
        draws = [draw(index, size=6, key=(index,)) for index in range(3)]
        once = await (await drive(Seeded(babble, pauses=1))).draw(draws)
        again = await (await drive(Seeded(babble, pauses=2))).draw(draws)
        assert once == again
        assert [group.task.index for group in once] == [0, 1, 2]
        for group in once:
            assert [len(path) for path in group.paths()] == [3, 4, 5, 3, 4, 5]
            assert [turn.id for turn in group.turns] == list(range(24))
            assert [turn.id for path in group.paths() for turn in path] == list(range(24))

    async def test_the_turn_limit_is_the_environments(self, drive):
        (group,) = await (await drive(Seeded(lambda *_: "on"))).draw([draw(size=2, max_turns=3)])
        for episode in group.episodes:
            assert (episode.stop, episode.solved) == (StopReason.MAX_TURNS, False)
            assert group.outcome(episode) == pytest.approx(3 * 0.2 + 0.25)  # the last turn carries the finish
            assert episode.final_reward == 0.0

    async def test_an_action_that_is_cut_off(self, drive):
        settings = replace(SETTINGS, max_action_tokens=2)
        engine = Seeded(lambda member, attempt, turn: "stop" if turn else "abc def ghi")
        (group,) = await (await drive(engine, settings=settings)).draw([draw(size=1, max_turns=2)])
        first, second = group.turns
        assert len(first.action_ids) == 2
        assert "abc def ghi".startswith(first.action.text)
        assert engine.contexts[1] == f"<|user|>Talk 0.<|assistant|>{first.action.text}<|end|><|user|>1: " + (
            f"{first.action.text}<|assistant|>"
        )
        assert second.prompt_ids[0] == RENDERER.stop_ids[0]


class TestContext:
    async def test_an_episode_that_would_not_fit_is_finished(self, drive, server):
        settings = replace(SETTINGS, max_context_tokens=150)
        (group,) = await (await drive(Seeded(lambda *_: "long"), settings=settings)).draw([draw(size=2)])
        for episode, context in zip(group.episodes, contexts(group), strict=True):
            assert episode.stop is StopReason.CONTEXT_OVERFLOW
            assert episode.final_info.end == "finished:context_overflow"
            turns = len(group.path(episode))
            assert 1 <= turns < 6
            assert group.outcome(episode) == pytest.approx(0.4 * turns + 0.25)
            assert episode.log_hash != group.turns[episode.leaf].log_hash
            again = len(RENDERER.following(group.turns[episode.leaf].observation.messages, RENDERER.stop_ids[0]))
            assert len(context) <= 150 < len(context) + again + settings.max_action_tokens
        assert await live_sessions(server) == []

    async def test_a_replaced_context_is_a_new_path_of_the_same_episode(self, drive):
        script = ["go", "forget", "look", "stop"]
        engine = Seeded(lambda member, attempt, turn: script[turn])
        (group,) = await (await drive(engine)).draw([draw(size=1)])
        path = group.path(group.episodes[0])
        assert [turn.new_context for turn in path] == [True, False, True, False]
        assert [turn.parent for turn in path] == [None, 0, 1, 2]
        assert engine.contexts[2] == "<|user|>Anew after 2.<|assistant|>"
        assert engine.contexts[3] == engine.contexts[2] + "look<|end|><|user|>3: look<|assistant|>"
        assert TOKENIZER.decode(path[2].prompt_ids) == engine.contexts[2]

    async def test_a_new_context_makes_room(self, drive):
        script = ["long", "forget"] * 3
        settings = replace(SETTINGS, max_context_tokens=150)
        engine = Seeded(lambda member, attempt, turn: script[turn])
        (group,) = await (await drive(engine, settings=settings)).draw([draw(size=1)])
        assert (len(group.turns), group.episodes[0].stop) == (6, StopReason.MAX_TURNS)

    @pytest.mark.parametrize("rule", [None, ALWAYS])
    async def test_a_prompt_that_does_not_fit(self, drive, server, rule):
        settings = replace(SETTINGS, max_context_tokens=30)
        expected = r"the prompt of talk/train/7 has \d+ tokens; with an action of up to 24 it does not fit max_context_tokens=30"
        with pytest.raises(RolloutError, match=expected):
            await (await drive(Seeded(babble), settings=settings)).draw([draw(7)], rule)
        assert await live_sessions(server) == []


class TestBrokenEnvironments:
    @pytest.mark.parametrize("rule", [None, EntropyBranching(initial_fraction=1.0)])
    async def test_lost_episodes_are_drawn_again_and_counted(self, drive, server, rule):
        def script(member, attempt, turn):
            return "boom" if turn == 1 and attempt < member else f"m{member}a{attempt}" if turn < 2 else "stop"

        (group,) = await (await drive(Seeded(script))).draw([draw(size=4)], rule)
        assert group.dropped == 0 + 1 + 2 + 3
        assert said(group) == [[f"m{member}a{member}"] * 2 + ["stop"] for member in range(4)]
        assert [group.outcome(episode) for episode in group.episodes] == pytest.approx([1.2] * 4)
        assert len(group.turns) == 12  # the lost ones left no turn behind
        assert await live_sessions(server) == []

    async def test_episodes_that_are_lost_at_their_start(self, drive):
        (group,) = await (await drive(Seeded(four_turns), env="stumbles")).draw([draw(size=3)])
        assert len(group.episodes) == 3
        assert group.dropped >= 2

    @pytest.mark.parametrize(("env", "index", "script"), [("talk", 8, lambda *_: "boom"), ("stumbles", 99, babble)])
    async def test_too_many_are_an_error(self, drive, server, env, index, script):
        expected = f"environment '{env}' lost {MAX_REDRAWS + 1} episodes on task train/{index}; see the server's log"
        with pytest.raises(RolloutError, match=expected):
            await (await drive(Seeded(script), env=env)).draw([draw(index)])
        assert await live_sessions(server) == []

    async def test_a_group_that_fails_takes_the_others_with_it(self, drive, server):
        """One group fails at its second turn, one is in the middle of an episode, and one of a session's start."""
        reached = asyncio.Event()

        class Policy(Seeded):
            async def generate(self, prompt_ids, sampling, parent=None):
                if sampling.seed[0] == 2:
                    reached.set()
                    await asyncio.sleep(3600)
                if sampling.seed[-1] == 1:
                    await reached.wait()
                    raise ZeroDivisionError("a fault of ours")
                return await super().generate(prompt_ids, sampling, parent)

        draws = [draw(1, key=(1,)), draw(2, key=(2,)), draw(3, size=8, key=(3,), wait=1.0)]
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for((await drive(Policy(babble))).draw(draws), PATIENCE)
        await asyncio.sleep(1.2)  # what a server was still opening would be there by now

        async def none_left():
            return await live_sessions(server) == []

        await eventually(none_left)


def check_tree(group):
    """Numbers are by member and time, members are complete, and forks share just what they say."""
    assert [episode.member for episode in group.episodes] == list(range(len(group.episodes)))
    first_seen = list(dict.fromkeys(turn.id for path in group.paths() for turn in path))
    assert first_seen == [turn.id for turn in group.turns] == list(range(len(group.turns)))
    for episode in group.episodes:
        path = group.path(episode)
        assert [turn.index for turn in path] == list(range(len(path)))
        if episode.forked_from is None:
            assert episode.forked_at == 0
            continue
        origin, at = group.path(group.episodes[episode.forked_from]), episode.forked_at
        assert at >= 1
        assert [turn.id for turn in path[:at]] == [turn.id for turn in origin[:at]]
        assert [turn.id for turn in path[at:]] != [turn.id for turn in origin[at:]] or len(path) == at


async def check_replays(group, env_class, client):
    """Every episode is what its actions alone lead to, here and on the server."""
    for episode in group.episodes:
        path = group.path(episode)
        actions = [turn.action for turn in path]
        alone = await LiveEpisode.replay(env_class, "train", group.task.index, group.seed, group.options, actions)
        assert alone.log_hash == path[-1].log_hash
        if episode.stop is StopReason.CONTEXT_OVERFLOW:
            await alone.finish("context_overflow")
        assert alone.log_hash == episode.log_hash
        assert [record.log_hash for record in alone.records][: len(path)] == [turn.log_hash for turn in path]
        replayed = await client.create(
            alone.task.env, index=group.task.index, seed=group.seed, options=group.options, actions=actions
        )
        assert replayed.log_hash == path[-1].log_hash
        await replayed.close()


class TestBranching:
    async def test_against_a_count_by_hand(self, drive, client, server):
        """Four episodes of four turns. One starts; after round 2 it is forked at 1, and after round 3 both paths are,
        at 2 and at 1. 16 turns are 4 + 3 + 2 + 3 = 12 nodes; turn 0 is used three more times and turn 1 once more."""
        (group,) = await (await drive(Seeded(four_turns))).draw([draw(size=4)], ALWAYS)
        assert [(e.forked_from, e.forked_at) for e in group.episodes] == [(None, 0), (0, 1), (0, 2), (1, 1)]
        assert [[turn.id for turn in path] for path in group.paths()] == [
            [0, 1, 2, 3],
            [0, 4, 5, 6],
            [0, 1, 7, 8],
            [0, 9, 10, 11],
        ]
        assert (group.env_steps, group.saved_env_steps) == (12, 4)
        go, look = (len(RENDERER.action_ids(word)) for word in ("go", "look"))
        assert group.saved_policy_tokens == 3 * go + look
        check_tree(group)
        await check_replays(group, Talk, client)
        assert await live_sessions(server) == []

    @pytest.mark.parametrize("size", [1, 2, 7])
    @pytest.mark.parametrize("mode", ["paper", "released"])
    async def test_groups_are_full_and_forks_go_their_own_way(self, drive, client, size, mode):
        rule = EntropyBranching(initial_fraction=0.3, base=0.6, beam=3, mode=mode)
        group, again = await (await drive(Seeded(babble))).draw([draw(2, size, (9,))] * 2, rule)
        assert len(group.episodes) == size
        check_tree(group)
        await check_replays(group, Talk, client)
        assert group == again
        for episode in group.episodes:
            if episode.forked_from is not None:
                ours, theirs = group.path(episode), group.path(group.episodes[episode.forked_from])
                assert ours[episode.forked_at].action != theirs[episode.forked_at].action
        if size == 7:
            assert any(episode.forked_from is not None for episode in group.episodes)
            flat = sum(len(path) for path in group.paths())
            assert (group.env_steps, group.saved_env_steps) == (len(group.turns), flat - len(group.turns))

    async def test_fresh_episodes_take_what_no_branch_took(self, drive):
        never = EntropyBranching(initial_fraction=0.25, base=0.0)
        (group,) = await (await drive(Seeded(babble))).draw([draw(size=5)], never)
        assert [episode.forked_from for episode in group.episodes] == [None] * 5
        assert group.saved_env_steps == 0

    async def test_replaced_contexts_are_not_branched(self, drive):
        def script(member, attempt, turn):
            return ["forget", "go", "look", "stop"][turn]

        (group,) = await (await drive(Seeded(script))).draw([draw(size=3)], ALWAYS)
        assert [episode.forked_from for episode in group.episodes] == [None] * 3

    async def test_a_branch_survives_its_parent(self, drive, client):
        """Member 0 is lost in its third turn, after it was forked, and drawn again: the two share nothing any more."""

        def script(member, attempt, turn):
            return "boom" if (member, attempt, turn) == (0, 0, 2) else babble(member, attempt, turn)

        rule = EntropyBranching(initial_fraction=0.5, base=0.6)
        (group,) = await (await drive(Seeded(script))).draw([draw(size=2)], replace(rule, beam=2))
        assert group.dropped == 1
        assert [(e.forked_from, e.forked_at) for e in group.episodes] == [(None, 0), (None, 0)]
        assert group.saved_env_steps == 0
        check_tree(group)
        await check_replays(group, Talk, client)


class TestTinyModel:
    @pytest.fixture
    async def engine(self):
        engine = LocalEngine(tiny(vocab=len(TOKENIZER), max_positions=2048), deterministic=True)
        yield engine
        await engine.close()

    @pytest.mark.parametrize("rule", [None, EntropyBranching(base=0.5, slope=5.0)], ids=["independent", "branching"])
    async def test_household(self, drive, client, server, engine, rule):
        settings = RolloutSettings(max_action_tokens=5, max_context_tokens=1600, vocab_size=len(TOKENIZER))
        rollout = await drive(engine, env="household", settings=settings)
        request = draw(1, size=6, key=(1, 2), max_turns=5)
        (group,) = await rollout.draw([request], rule)
        assert len(group.episodes) == 6
        check_tree(group)
        await check_replays(group, load("household"), client)
        model = engine.backbone.model
        for path in group.paths():
            context = ()
            for turn in path:
                context += turn.prompt_ids + turn.action_ids
                logps = distribution(model, context, len(turn.action_ids))
                picked = logps[range(len(turn.action_ids)), list(turn.action_ids)]
                assert turn.logprobs == pytest.approx(picked.tolist(), rel=0, abs=1e-4)
                assert turn.entropies == pytest.approx((-(logps.exp() * logps).sum(-1)).tolist(), rel=0, abs=1e-4)
                assert turn.versions == (0,) * len(turn.action_ids)
                assert RENDERER.decode(turn.action_ids) == turn.action.text
        unique = trie_size([context[:-1] for context in contexts(group)])
        assert unique <= engine.stats.forwarded_tokens <= 1.05 * unique
        assert engine.stats.recomputed_tokens == 0
        if rule is not None:
            assert group.saved_policy_tokens > 0
            assert engine.stats.sampled_tokens == group.policy_tokens
        assert await live_sessions(server) == []
        assert (await rollout.draw([request], rule)) == [group]
        assert (await rollout.draw([replace(request, key=(1, 3))], rule)) != [group]
