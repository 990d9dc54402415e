"""Answer probes: what they measure, what they cost, what they leave behind, and who sees the answer."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from probe_worlds import CANARY
from remote_world import served
from tiny_models import VOCAB, distribution, tiny
from waiting import PATIENCE, eventually

from turnwise_agent.branching import EntropyBranching
from turnwise_agent.client import TurnwiseClient
from turnwise_agent.engines.base import Sampling
from turnwise_agent.engines.local import LocalEngine
from turnwise_agent.engines.scripted import ScriptedEngine
from turnwise_agent.errors import EngineError, Forbidden, RendererError, RolloutError, Unauthorized
from turnwise_agent.probing import PAPER_TEMPLATE, AnswerProbe, GroupProbe
from turnwise_agent.renderer import Renderer
from turnwise_agent.rollout import RolloutEngine, RolloutSettings, TaskDraw
from turnwise_agent.store import TrajectoryStore
from turnwise_trainer.models import make_tokenizer

WORDS = ["go to fridge 1", "Riddle 1.", "Bye. stop", "the answer is", "<answer></answer>"]
TOKENIZER = make_tokenizer(WORDS * 3, 330)
RENDERER = Renderer(TOKENIZER)
SETTINGS = RolloutSettings(max_action_tokens=6, max_context_tokens=400, vocab_size=len(TOKENIZER))
PROBE = AnswerProbe("the answer is {answer}.")
BRANCHING = EntropyBranching(initial_fraction=0.5, base=0.6, slope=0.0)
STOP = 7


def sampling(seed, max_tokens=6):
    return Sampling(max_tokens=max_tokens, stop_ids=(STOP,), seed=(seed,))


def prompt(seed, length=9):
    return tuple(torch.randint(8, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def forced(model, context, continuation, given):
    """By one plain forward pass of everything."""
    logps = distribution(model, tuple(context) + tuple(continuation), len(continuation))
    return logps[range(len(continuation)), list(continuation)].tolist()[given:]


@pytest.fixture
async def make():
    engines = []

    def one(model=None, **settings):
        engines.append(LocalEngine(model or tiny(), **settings))
        return engines[-1]

    yield one
    for engine in engines:
        await engine.close()


class TestEngine:
    """Probes that ride on the prefill of a prompt somebody generates from."""

    async def play(self, engine, probed, turns=3, members=4):
        """Members fork from one prompt, are probed before each turn; contexts, probes, and what was drawn."""
        paths = [((), None) for _ in range(members)]
        scored, drawn = [], []
        for turn in range(turns):
            new = [prompt(0) if turn == 0 else prompt(10 * turn + n, 3 + n) for n in range(members)]
            target, given = prompt(99 + turn, 5 + turn), 2 + turn
            pairs = list(zip(new, paths, strict=True))
            asked = [engine.generate(n, sampling(7 * i + turn), p[1]) for i, (n, p) in enumerate(pairs)]
            if probed:
                asked += [engine.score(n, target, p[1], given=given) for n, p in pairs]
            answers = await asyncio.gather(*asked)
            contexts = [p[0] + n for n, p in pairs]
            if probed:
                scored += [(c, target, given, a) for c, a in zip(contexts, answers[members:], strict=True)]
            drawn += answers[:members]
            paths = [(c + g.token_ids, g.handle) for c, g in zip(contexts, answers[:members], strict=True)]
            paths[-1] = paths[0]  # a fork: two go on from one
        return scored, drawn, paths

    @pytest.mark.parametrize("settings", [{}, {"cache_tokens": 150, "max_batch": 4}, {"deterministic": True}])
    async def test_what_a_plain_forward_says(self, make, settings):
        engine = make(**settings)
        scored, _, _ = await self.play(engine, probed=True)
        assert len(scored) == 12
        for context, target, given, got in scored:
            assert got == pytest.approx(forced(engine.backbone.model, context, target, given), rel=0, abs=1e-4)

    async def test_eviction_between_turns(self, make):
        engine = make(cache_tokens=60)
        first = await engine.generate(prompt(1, 30), sampling(1))
        await engine.generate(prompt(2, 50), sampling(2))
        assert engine.evicted_tokens > 0
        new, target = prompt(3, 4), prompt(4, 6)
        _, scored = await asyncio.gather(
            engine.generate(new, sampling(3), first.handle), engine.score(new, target, first.handle, given=3)
        )
        assert engine.stats.recomputed_tokens >= 30
        context = prompt(1, 30) + first.token_ids + new
        assert scored == pytest.approx(forced(engine.backbone.model, context, target, 3), rel=0, abs=1e-4)

    async def test_they_leave_no_trace(self, make):
        plain, probed = make(), make()
        _, ours, _kept = await self.play(probed, probed=True)
        _, theirs, _also = await self.play(plain, probed=False)
        assert [g.token_ids for g in ours] == [g.token_ids for g in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, rel=0, abs=1e-5)
        await eventually(lambda: probed.cached_tokens == plain.cached_tokens)

    async def test_they_never_prefill_a_history_again(self, make):
        plain, probed = make(), make()
        scored, _, _ = await self.play(probed, probed=True)
        await self.play(plain, probed=False)
        own = sum(len(target) - 1 for _, target, _, _ in scored)
        assert 0 < probed.stats.forwarded_tokens - plain.stats.forwarded_tokens <= own
        assert probed.stats.recomputed_tokens == 0
        assert probed.stats.batches == plain.stats.batches  # no pass of their own through the queue

    async def test_they_do_not_push_draws_apart(self, make):
        engine = make(max_batch=4)
        await self.play(engine, probed=True, turns=1)
        assert engine.stats.batches == 1

    async def test_deterministic_draws_do_not_feel_them(self, make):
        model = tiny()
        alone, probed = make(model, deterministic=True), make(model, deterministic=True)
        _, theirs, _ = await self.play(alone, probed=False)
        _, ours, _ = await self.play(probed, probed=True)
        assert [(g.token_ids, g.logprobs, g.entropies) for g in ours] == [
            (g.token_ids, g.logprobs, g.entropies) for g in theirs
        ]

    async def test_all_given_is_nothing_to_score(self, make):
        for given in (-1, 3, 4):
            with pytest.raises(EngineError, match=f"nothing to score: {given} of 3"):
                await make().score((5,), (1, 2, 3), given=given)


class TestGroup:
    async def test_what_is_the_same_is_asked_once_and_what_differs_apart(self):
        """Two members of a group whose worlds greet them differently have beliefs of their own."""
        asked = []

        class Counting:
            can_probe = True

            async def score(self, prompt_ids, continuation_ids, parent=None, *, given=0):
                asked.append(tuple(prompt_ids))
                return (-float(len(asked)),)

        probe = GroupProbe(PROBE, Counting(), RENDERER)
        said = [await probe.score(None, prompt, None) for prompt in ((1, 2), (1, 3), (1, 2))]
        said.append(await probe.score(0, (1, 2), None))
        assert (asked, said) == ([(1, 2), (1, 3), (1, 2)], [(-1.0,), (-2.0,), (-1.0,), (-3.0,)])
        await probe.close()


class TestTemplate:
    def test_the_answer_is_encoded_as_the_policy_would_write_it(self):
        before, answer = "<answer>", "fridge 1"
        ids, given = RENDERER.span_ids(before, answer, "</answer>")
        whole = RENDERER.action_ids(f"{before}{answer}</answer>")
        assert ids == whole[: len(ids)]
        text = TOKENIZER.decode(ids[given:])
        assert answer in text
        assert answer not in TOKENIZER.decode(ids[:-1])
        assert TOKENIZER.decode(ids[:given]) + text == TOKENIZER.decode(ids)
        assert before.startswith(TOKENIZER.decode(ids[:given]))

    def test_an_answer_cannot_fake_a_delimiter(self):
        ids, given = RENDERER.span_ids("say ", "<|end|><|user|>", "")
        assert not set(ids) & set(TOKENIZER.all_special_ids)
        assert TOKENIZER.decode(ids[given:]) == "<|end|><|user|>"

    def test_the_papers(self):
        assert PAPER_TEMPLATE == ("\nNow there's enough information to answer\n</think>\n<answer>\n{answer}\n</answer>")
        assert AnswerProbe().template == PAPER_TEMPLATE

    @pytest.mark.parametrize("template", ["answer", "{answer} {answer}"])
    def test_without_a_place_for_the_answer(self, template):
        with pytest.raises(RolloutError, match="exactly once"):
            AnswerProbe(template)

    def test_a_tokenizer_without_places(self):
        class Slow:
            def __getattr__(self, name):
                return getattr(TOKENIZER, name)

            def __call__(self, *args, **kwargs):
                return TOKENIZER(*args, **kwargs)

            is_fast = False

        with pytest.raises(RendererError, match="places of its tokens"):
            Renderer(Slow()).span_ids("a", "b", "c")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("state")
    tokens = home / "tokens.jsonl"
    scopes = {"trainer": ["act", "trainer"], "player": ["act"]}
    tokens.write_text(
        "".join(json.dumps({"name": n, "token": f"{n}-{'x' * 32}", "scopes": s}) + "\n" for n, s in scopes.items())
    )
    classes = ["Riddle", "Unanswerable", "Forgetful"]
    with served(home, *(f"probe_worlds:{name}" for name in classes), "--tokens-file", str(tokens)) as server:
        yield server


@pytest.fixture
async def drive(server):
    """A rollout engine of a client with the token of that name."""
    clients = []

    async def one(engine, env="riddle", name="trainer", settings=SETTINGS):
        token = f"{name}-{'x' * 32}" if name else None
        clients.append(TurnwiseClient(server.url, patience=PATIENCE, token=token))
        return RolloutEngine(clients[-1], engine, RENDERER, await clients[-1].spec(env), settings)

    yield one
    for client in clients:
        await client.aclose()


def draw(index=3, size=6, **options):
    return TaskDraw("train", index, size, key=(5,), options={"max_turns": 4, **options})


def model_for_talk():
    return tiny(vocab=len(TOKENIZER), max_positions=1024)


def contexts(path):
    """Of each turn of an episode: all that was read when it began."""
    context = ()
    for turn in path:
        context = (() if turn.new_context else context) + turn.prompt_ids
        yield turn, context
        context += turn.action_ids


class TestRollout:
    @pytest.mark.parametrize("rule", [None, BRANCHING], ids=["flat", "tree"])
    @pytest.mark.parametrize("settings", [{}, {"cache_tokens": 500}, {"deterministic": True}])
    async def test_every_turn_is_probed_before_it(self, make, drive, rule, settings):
        engine = make(model_for_talk(), **settings)
        (group,) = await (await drive(engine)).draw([draw()], rule, PROBE)
        ids, given = RENDERER.span_ids("the answer is ", f"a {CANARY} 3", ".")  # the first alias
        assert len(group.turns) >= 12
        for path in group.paths():
            for turn, context in contexts(path):
                wanted = forced(engine.backbone.model, context, ids, given)
                assert turn.answer_logprobs == pytest.approx(wanted, rel=0, abs=1e-4)
        if rule is not None:
            assert group.saved_policy_tokens > 0
        different = {context for path in group.paths() for _, context in contexts(path)}
        assert engine.stats.scored_tokens == len(different) * (len(ids) - given)

    async def test_new_contexts_too(self, make, drive):
        """A context that was replaced is probed as it is."""

        class Forgets(LocalEngine):
            async def generate(self, prompt_ids, sampling, parent=None):
                drawn = await super().generate(prompt_ids, sampling, parent)
                said = RENDERER.action_ids(["go", "forget", "go", "stop"][sampling.seed[-1]])
                scripted = {"token_ids": said, "logprobs": (0.0,) * len(said), "entropies": (0.0,) * len(said)}
                return type(drawn)(**{**{n: getattr(drawn, n) for n in drawn.__slots__}, **scripted})

        engine = Forgets(model_for_talk())
        (group,) = await (await drive(engine)).draw([draw(size=1, max_turns=6)], None, PROBE)
        await engine.close()
        assert [turn.new_context for turn in group.turns] == [True, False, True, False]
        ids, given = RENDERER.span_ids("the answer is ", f"a {CANARY} 3", ".")
        third = group.turns[2]
        wanted = forced(engine.backbone.model, third.prompt_ids, ids, given)
        assert third.answer_logprobs == pytest.approx(wanted, rel=0, abs=1e-4)

    async def test_drawing_is_the_same_without(self, make, drive):
        model = model_for_talk()
        probed = await (await drive(make(model, deterministic=True))).draw([draw()], None, PROBE)
        plain = await (await drive(make(model, deterministic=True))).draw([draw()])
        said = [[(turn.action_ids, turn.logprobs) for turn in group.turns] for group in (*probed, *plain)]
        assert said[0] == said[1]
        assert {turn.answer_logprobs for turn in plain[0].turns} == {()}

    async def test_a_probe_must_fit_the_context(self, make, drive):
        """The episode ends where the next prompt and the answer would not fit, as with an action."""
        template = "the answer is " * 8
        room = len(RENDERER.span_ids(template, f"a {CANARY} 3", "")[0])

        async def longest(most):
            settings = RolloutSettings(max_action_tokens=2, max_context_tokens=most, vocab_size=len(TOKENIZER))
            probe = AnswerProbe(template + "{answer}")
            drive_one = await drive(make(model_for_talk()), settings=settings)
            (group,) = await drive_one.draw([draw(size=1)], None, probe)
            ends = [len(context) for path in group.paths() for _, context in contexts(path)]
            return max(ends), group.episodes[0].stop

        end, stop = await longest(400)
        assert stop == "max_turns"
        shorter, stop = await longest(end + room - 1)
        assert stop == "context_overflow"
        assert shorter < end
        assert await longest(end + room) == (end, "max_turns")


class TestPrivilege:
    async def test_the_canary(self, make, drive, tmp_path):
        """What is in a Reference reaches the scorer, and nobody else: not a prompt, not a stored turn, not the cache."""
        generated, scored = [], []

        class Watched(LocalEngine):
            async def generate(self, prompt_ids, sampling, parent=None):
                drawn = await super().generate(prompt_ids, sampling, parent)
                nodes = drawn.handle.node.chain()
                generated.append([token for node in nodes for token in node.tokens] + list(drawn.handle.pending))
                return drawn

            async def score(self, prompt_ids, continuation_ids, parent=None, *, given=0):
                scored.append((tuple(prompt_ids), tuple(continuation_ids)))
                return await super().score(prompt_ids, continuation_ids, parent, given=given)

        engine = Watched(model_for_talk())
        (group,) = await (await drive(engine)).draw([draw()], BRANCHING, PROBE)
        held = [TOKENIZER.decode(node.tokens) for node in engine._pool._living()]
        await engine.close()
        assert all(CANARY in TOKENIZER.decode(continuation) for _, continuation in scored)
        read = [TOKENIZER.decode(ids) for ids in generated] + [TOKENIZER.decode(ids) for ids, _ in scored] + held
        read += [TOKENIZER.decode(turn.prompt_ids) for turn in group.turns]
        assert any("Riddle 3." in text for text in read)
        assert not any(CANARY in text for text in read)
        with TrajectoryStore(tmp_path / "store.db") as store:
            store.add(store.run("run"), 0, "train", [group])
            rows = list(store.db["turns"].rows)
            assert [json.loads(row["answer_logprobs"]) for row in rows] == [
                list(turn.answer_logprobs) for turn in group.turns
            ]
            assert not any(CANARY in TOKENIZER.decode(json.loads(row["prompt_ids"])) for row in rows)
            assert CANARY not in "\n".join(store.db.conn.iterdump())

    @pytest.mark.parametrize(
        ("name", "error", "says"),
        [
            ("player", Forbidden, r"the token of 'player' lacks scope 'trainer' \(forbidden\)\. Use a token with"),
            (None, Unauthorized, r"\(unauthorized\)\. Set TURNWISE_TOKEN_FILE"),
        ],
    )
    async def test_without_the_right_token(self, make, drive, monkeypatch, name, error, says):
        monkeypatch.delenv("TURNWISE_TOKEN", raising=False)
        with pytest.raises(error, match=says) as caught:
            await (await drive(make(model_for_talk()), name=name)).draw([draw()] * 2, None, PROBE)
        assert "\n" not in str(caught.value)


class TestRefusals:
    async def test_an_engine_that_believes_nothing(self, drive):
        engine = ScriptedEngine(lambda context: RENDERER.action_ids("stop"))
        with pytest.raises(EngineError, match="ScriptedEngine cannot say how likely an answer is, so info_gain"):
            await (await drive(engine)).draw([draw()], None, PROBE)

    @pytest.mark.parametrize(
        ("env", "says"),
        [
            ("unanswerable", "the Reference of unanswerable/train/3 has no answer that info_gain could look for"),
            ("forgetful", "forgetful/train/3 cannot tell its answer: .*KeyError"),
        ],
    )
    async def test_tasks_without_an_answer(self, make, drive, env, says):
        with pytest.raises(RolloutError, match=says):
            await (await drive(make(model_for_talk()), env=env)).draw([draw()], None, PROBE)
