"""The local engine against plain transformers, alone and in crowds, with caches too small, forked, and dropped."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
import torch
from tiny_models import VOCAB, distribution, tiny, trie_size
from waiting import PATIENCE, eventually

from turnwise_agent.engines.base import Sampling
from turnwise_agent.engines.local import LocalEngine
from turnwise_agent.engines.scripted import ScriptedEngine
from turnwise_agent.errors import EngineError

STOP = 7
close_to = {"rel": 0, "abs": 1e-5}


def sampling(seed, max_tokens=8, temperature=1.0, **more):
    return Sampling(max_tokens=max_tokens, stop_ids=(STOP,), temperature=temperature, seed=(seed,), **more)


def prompt(seed, length=9):
    return tuple(torch.randint(8, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


@pytest.fixture(params=["qwen3", "llama"])
def model(request):
    return tiny(request.param)


@pytest.fixture
async def make():
    """Engines that are closed afterwards."""
    engines = []

    def one(model=None, **settings):
        engines.append(LocalEngine(model or tiny(), **settings))
        return engines[-1]

    yield one
    for engine in engines:
        await engine.close()


async def episode(engine, seed, turns=3, temperature=1.0, first=None, pause=None):
    """A few turns; the whole context and the generations."""
    context, drawn, handle = (), [], None
    for turn in range(turns):
        new = (first or prompt(seed)) if turn == 0 else prompt(100 * seed + turn, 2 + (seed + turn) % 4)
        drawn.append(await engine.generate(new, sampling(10 * seed + turn, temperature=temperature), handle))
        context += new + drawn[-1].token_ids
        handle = drawn[-1].handle
        if pause:
            await pause()
    return context, drawn


async def busy(engine, batches):
    """Until the engine works on its ``batches``-th batch."""
    await eventually(lambda: engine.stats.batches >= batches)


def held_up(engine, batch):
    """An event that the model waits for when it comes to this batch (counted from one)."""
    go_on = threading.Event()

    def wait(*_):
        assert engine.stats.batches < batch or go_on.wait(PATIENCE)

    engine.backbone.decoder.register_forward_pre_hook(wait)
    return go_on


async def caches(engine, tokens):
    """Return when the engine holds this many tokens. Event loop and executor keep a result until their next step."""

    def so_many():
        gc.collect()
        return engine.cached_tokens == tokens

    await eventually(so_many)


def values(drawn):
    return [(g.token_ids, g.logprobs, g.entropies, g.top_entropies) for g in drawn]


def agree(ours, theirs):
    """The same tokens, and numbers that differ in their last bits only."""
    assert [g.token_ids for g in ours] == [g.token_ids for g in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, **close_to)
        assert a.entropies == pytest.approx(b.entropies, **close_to)


class TestAgainstTransformers:
    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    async def test_log_probs_and_entropies_of_every_turn(self, model, make, temperature):
        engine = make(model)
        played = await asyncio.gather(*(episode(engine, seed, temperature=temperature) for seed in range(6)))
        for context, drawn in played:
            before = 0
            for turn, generation in enumerate(drawn):
                seed = next(seed for seed, (c, _) in enumerate(played) if c is context)
                before += len(prompt(seed)) if turn == 0 else 2 + (seed + turn) % 4
                count = len(generation.token_ids)
                assert context[before : before + count] == generation.token_ids
                logps = distribution(model, context[: before + count], count, temperature)
                picked = logps[range(count), list(generation.token_ids)]
                contributions = -(logps.exp() * logps)
                order = logps.argsort(-1, descending=True)[:, :10]
                assert generation.logprobs == pytest.approx(picked.tolist(), **close_to)
                assert generation.entropies == pytest.approx(contributions.sum(-1).tolist(), **close_to)
                top = contributions.gather(-1, order).sum(-1).tolist()
                assert generation.top_entropies == pytest.approx(top, **close_to)
                before += count

    async def test_greedy_is_transformers_own_greedy(self, model, make):
        engine = make(model)
        prompts = [prompt(seed, 4 + 3 * seed) for seed in range(5)]
        ours = await asyncio.gather(*(engine.generate(p, sampling(0, 12, temperature=0.0)) for p in prompts))
        for p, generation in zip(prompts, ours, strict=True):
            theirs = model.generate(
                input_ids=torch.tensor([p]), max_new_tokens=12, do_sample=False, eos_token_id=STOP, pad_token_id=0
            )
            assert generation.token_ids == tuple(theirs[0, len(p) :].tolist())

    async def test_frequencies_are_the_probabilities(self, make):
        engine = make(max_batch=500)
        draws = await asyncio.gather(*(engine.generate((9, 10), sampling(seed, 1)) for seed in range(4000)))
        counts = torch.bincount(torch.tensor([g.token_ids[0] for g in draws]), minlength=VOCAB) / 4000
        expected = distribution(engine.backbone.model, (9, 10, 0), 1)[0].exp()
        assert expected.max() > 0.05
        assert (counts - expected).abs().max() < 0.03  # four standard deviations of the most likely token

    @pytest.mark.parametrize("turns", [0, 2])
    async def test_scores_are_a_teacher_forced_forward(self, model, make, turns):
        engine = make(model)
        context, drawn = await episode(engine, 1, turns) if turns else ((), [])
        handle = drawn[-1].handle if drawn else None
        kept = engine.cached_tokens
        question, answers = prompt(50, 5), [prompt(60 + n, n) for n in range(1, 6)]
        scored = await asyncio.gather(*(engine.score(question, answer, handle) for answer in answers))
        for answer, got in zip(answers, scored, strict=True):
            logps = distribution(model, context + question + answer, len(answer))
            assert got == pytest.approx(logps[range(len(answer)), list(answer)].tolist(), rel=0, abs=1e-4)
        assert engine.stats.scored_tokens == 1 + 2 + 3 + 4 + 5
        await caches(engine, kept)

    async def test_scores_and_draws_in_one_batch(self, make):
        engine, alone = make(), make()
        drawn, score = await asyncio.gather(
            engine.generate(prompt(1), sampling(1)), engine.score(prompt(2, 5), prompt(3, 4))
        )
        assert engine.stats.batches == 1
        agree([drawn], [await alone.generate(prompt(1), sampling(1))])
        assert score == pytest.approx(await alone.score(prompt(2, 5), prompt(3, 4)), **close_to)


class TestCompany:
    async def test_same_seed_same_tokens_alone_and_in_a_batch(self, make):
        crowd = make()
        together = await asyncio.gather(*(episode(crowd, seed) for seed in range(12)))
        assert crowd.stats.batches < 12 * 3
        for seed in range(12):
            _, drawn = await episode(make(), seed)
            agree(together[seed][1], drawn)

    async def test_rows_that_finish_early_leave_without_a_trace(self, make):
        engine, alone = make(), make()
        lengths = [1, 2, 3, 5, 9, 17, 33, 33]
        together = await asyncio.gather(*(engine.generate(prompt(n), sampling(n, n)) for n in lengths))
        assert engine.stats.batches == 1
        for n, generation in zip(lengths, together, strict=True):
            agree([generation], [await alone.generate(prompt(n), sampling(n, n))])
        steps = engine.stats.sampled_tokens - len(lengths)
        assert engine.stats.padding_tokens < steps  # a batch that never shrinks: 8 * 32 - steps

    async def test_a_finished_row_can_be_continued(self, model, make):
        engine = make(model)
        short, _ = await asyncio.gather(
            engine.generate(prompt(1), sampling(1, 2)), engine.generate(prompt(2), sampling(2, 30))
        )
        after = await engine.generate((20, 21), sampling(3), short.handle)
        context = prompt(1) + short.token_ids + (20, 21) + after.token_ids
        logps = distribution(model, context, len(after.token_ids))
        assert after.logprobs == pytest.approx(
            logps[range(len(after.token_ids)), list(after.token_ids)].tolist(), **close_to
        )

    async def test_cancelling_one_does_not_disturb_the_others(self, make):
        engine, alone = make(), make()
        go_on = held_up(engine, 2)
        tasks = [asyncio.create_task(episode(engine, seed)) for seed in range(6)]
        await busy(engine, 2)
        tasks[2].cancel()
        go_on.set()
        rest = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(rest.pop(2), asyncio.CancelledError)
        for seed, (_, drawn) in zip([0, 1, 3, 4, 5], rest, strict=True):
            agree(drawn, (await episode(alone, seed))[1])

    async def test_more_requests_than_a_batch_holds(self, make):
        engine = make(max_batch=4)
        together = await asyncio.gather(*(episode(engine, seed, 1) for seed in range(10)))
        assert engine.stats.batches == 3
        agree([g for _, d in together for g in d], [(await episode(make(), seed, 1))[1][0] for seed in range(10)])


class TestCache:
    async def test_every_token_goes_through_the_model_once(self, make):
        """Eight members share a prompt, and each turn is forked: three children of every path."""
        engine = make()
        shared = prompt(0, 40)
        starts = await asyncio.gather(*(engine.generate(shared, sampling(seed)) for seed in range(8)))
        paths = [(shared + g.token_ids, g.handle) for g in starts]
        finished = []
        for turn in range(2):
            new = [prompt(1000 * turn + n, 12) for n in range(len(paths))]
            children = [(p, n, fork) for p, n in zip(paths, new, strict=True) for fork in range(3)]
            drawn = await asyncio.gather(
                *(engine.generate(n, sampling(31 * i + turn), p[1]) for i, (p, n, _) in enumerate(children))
            )
            finished += [context for context, _ in paths]
            paths = [(p[0] + n + g.token_ids, g.handle) for (p, n, _), g in zip(children, drawn, strict=True)]
        assert len(paths) == 8 * 3 * 3
        unique = trie_size([context[:-1] for context, _ in paths] + finished)
        assert unique <= engine.stats.forwarded_tokens <= 1.05 * unique
        assert engine.stats.recomputed_tokens == engine.evicted_tokens == 0

    async def test_a_new_turn_forwards_only_what_is_new(self, make):
        engine = make()
        first = await engine.generate(prompt(1, 50), sampling(1, 6))
        assert engine.stats.forwarded_tokens == 50 + len(first.token_ids) - 1
        before = engine.stats.forwarded_tokens
        second = await engine.generate(prompt(2, 3), sampling(2, 6), first.handle)
        # The last token of the first action, the three new ones, and all but the last of the second action.
        assert engine.stats.forwarded_tokens - before == 1 + 3 + len(second.token_ids) - 1

    async def test_forks_share_what_is_before_them(self, make):
        engine = make()
        trunk = await engine.generate(prompt(1, 50), sampling(1, 6))
        held = engine.cached_tokens
        assert held == 50 + len(trunk.token_ids) - 1
        forks = await asyncio.gather(*(engine.generate((9,), sampling(s, 6), trunk.handle) for s in range(4)))
        own = sum(len(fork.token_ids) - 1 for fork in forks)
        assert engine.cached_tokens == held + 2 + own  # the pending token and the 9 are one shared segment
        assert len({fork.token_ids for fork in forks}) == 4

    async def test_dropped_handles_give_their_slots_back(self, make):
        engine = make()
        played = await asyncio.gather(*(episode(engine, seed) for seed in range(5)))
        assert engine.cached_tokens > 100
        tail = played[0][1][-1]
        whole = len(played[0][0]) - 1
        del played
        await caches(engine, whole)  # a handle keeps its ancestors
        del tail
        await caches(engine, 0)

    async def test_eviction_changes_nothing_but_the_work(self, make):
        """Three episodes take turns; each fits the tight cache, together they do not."""
        roomy, tight = make(), make(cache_tokens=80)

        async def by_turns(engine):
            drawn, handles = [], [None] * 3
            for turn in range(4):
                for seed in range(3):
                    new = prompt(10 * turn + seed, 8)
                    drawn.append(await engine.generate(new, sampling(10 * turn + seed), handles[seed]))
                    handles[seed] = drawn[-1].handle
            return drawn

        ours, theirs = await by_turns(tight), await by_turns(roomy)
        agree(ours, theirs)
        assert tight.evicted_tokens > 0
        assert tight.stats.recomputed_tokens > 0
        assert tight.cached_tokens <= 80 < roomy.cached_tokens
        assert roomy.stats.recomputed_tokens == roomy.evicted_tokens == 0
        assert tight.stats.forwarded_tokens - tight.stats.recomputed_tokens == roomy.stats.forwarded_tokens

    async def test_a_fork_of_an_evicted_path(self, make):
        engine = make(cache_tokens=100)
        trunk = await engine.generate(prompt(1, 40), sampling(1))
        before = await engine.generate((9,), sampling(2), trunk.handle)
        await engine.generate(prompt(2, 90), sampling(3, 2))
        assert engine.evicted_tokens > 0
        agree([await engine.generate((9,), sampling(2), trunk.handle)], [before])

    async def test_a_budget_too_small_for_a_batch_is_said_and_survived(self, make):
        engine = make(cache_tokens=64)
        results = await asyncio.gather(
            *(engine.generate(prompt(seed, 30), sampling(seed)) for seed in range(4)), return_exceptions=True
        )
        assert {type(result) for result in results} == {EngineError}
        assert "cache budget of 64 tokens is too small for one batch; raise cache_tokens" in str(results[0])
        agree([await engine.generate(prompt(1, 30), sampling(1))], [await make().generate(prompt(1, 30), sampling(1))])
        del results
        await caches(engine, 0)


class TestDeterministic:
    async def test_bits_do_not_depend_on_company_or_on_eviction(self, make):
        model = tiny("llama")
        _, alone = await episode(make(model, deterministic=True), 3, 4)

        crowd = make(model, deterministic=True)
        crowded = (await asyncio.gather(*(episode(crowd, seed, 4) for seed in range(31))))[3][1]
        assert values(crowded) == values(alone)

        tight = make(model, deterministic=True, cache_tokens=110)

        async def intrude():
            await tight.generate(prompt(500, 100), sampling(1))

        _, recomputed = await episode(tight, 3, 4, pause=intrude)
        assert tight.stats.recomputed_tokens > 40
        assert values(recomputed) == values(alone)

    async def test_scores_too(self, make):
        model = tiny()
        engine = make(model, deterministic=True)
        alone = await engine.score(prompt(1), prompt(2, 5))
        crowd = await asyncio.gather(*(engine.score(prompt(seed), prompt(2, 5)) for seed in range(1, 12)))
        assert crowd[0] == alone


class TestPublish:
    async def test_weights_versions_and_caches(self, make):
        engine, new = make(tiny(seed=0)), tiny(seed=1)
        old = await engine.generate(prompt(1), sampling(1))
        await engine.publish(new.state_dict(), 5)
        assert engine.cached_tokens == 0
        after = await engine.generate((9, 10), sampling(2), old.handle)
        fresh = await engine.generate(prompt(1), sampling(1))
        assert set(old.versions) == {0}
        assert len(old.versions) == len(old.token_ids)
        assert set(after.versions) == set(fresh.versions) == {5}
        agree([fresh], [await make(new).generate(prompt(1), sampling(1))])
        assert fresh.logprobs != pytest.approx(old.logprobs, abs=1e-3)
        context = prompt(1) + old.token_ids + (9, 10) + after.token_ids
        count = len(after.token_ids)
        logps = distribution(new, context, count)[range(count), list(after.token_ids)]
        assert after.logprobs == pytest.approx(logps.tolist(), **close_to)

    async def test_the_engine_has_its_own_copy(self, make):
        engine, new = make(), tiny(seed=1)
        await engine.publish(new.state_dict(), 1)
        before = await engine.score(prompt(1), prompt(2))
        with torch.no_grad():
            for parameter in new.parameters():
                parameter.zero_()
        assert await engine.score(prompt(3) + prompt(1), prompt(2)) != before
        assert await engine.score(prompt(1), prompt(2)) == before

    @pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
    async def test_weights_that_do_not_fit_change_nothing(self, make, fault):
        engine, weights = make(), dict(tiny(seed=1).state_dict())
        if fault == "missing":
            del weights["lm_head.weight"]
        elif fault == "extra":
            weights["lm_head.bias"] = torch.zeros(3)
        else:
            weights["lm_head.weight"] = torch.zeros(3, 3)
        before = await engine.score(prompt(1), prompt(2))
        with pytest.raises(EngineError, match=r"published weights do not fit the model: lm_head\."):
            await engine.publish(weights, 1)
        assert await engine.score(prompt(1), prompt(2)) == before
        assert engine.version == 0


class TestRefusals:
    async def test_requests_that_make_no_sense(self, make):
        engine = make(tiny(max_positions=40))
        for request, message in [
            (engine.generate((), sampling(0)), "the prompt is empty"),
            (
                engine.generate((5,), sampling(0), "handle"),
                "parent must be the handle of an earlier generation, not str",
            ),
            (engine.generate(prompt(1, 33), sampling(0, 8)), "context of 41 tokens exceeds the model's 40 positions"),
            (engine.generate((5, VOCAB), sampling(0)), f"token ids go from 0 to {VOCAB - 1}, not 5 to {VOCAB}"),
            (engine.generate((5, -1), sampling(0)), "token ids go from 0"),
            (engine.score((5,), ()), "nothing to score"),
            (engine.score((5,), (VOCAB,)), "token ids go from 0"),
            (engine.score(prompt(1, 33), prompt(2, 8)), "context of 41 tokens"),
        ]:
            with pytest.raises(EngineError, match=message):
                await request
        assert engine.stats.batches == 0
        assert len((await engine.generate(prompt(1, 32), sampling(0, 8))).token_ids) <= 8

    async def test_length_counts_the_whole_path(self, make):
        engine = make(tiny(max_positions=40))
        first = await engine.generate(prompt(1, 20), sampling(3, 8, temperature=0.0))
        room = 40 - 20 - len(first.token_ids)
        with pytest.raises(EngineError, match="context of 41 tokens"):
            await engine.generate(prompt(2, room), sampling(1, 1), first.handle)
        await engine.generate(prompt(2, room - 1), sampling(1, 1), first.handle)

    @pytest.mark.parametrize(
        "wrong", [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_entropy_k": 0}]
    )
    def test_samplings_that_make_no_sense(self, wrong):
        with pytest.raises(EngineError, match=next(iter(wrong))):
            Sampling(**{"max_tokens": 4, "stop_ids": (1,), **wrong})

    def test_sliding_windows(self):
        from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

        small = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2}
        small |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "sliding_window": 4}
        mixed = Qwen3ForCausalLM(Qwen3Config(use_sliding_window=True, max_window_layers=1, **small))
        with pytest.raises(EngineError, match="has full_attention, sliding_attention layers; only full attention"):
            LocalEngine(mixed)
        with pytest.raises(EngineError, match="MistralForCausalLM has sliding_attention layers"):
            LocalEngine(MistralForCausalLM(MistralConfig(**small)))
        LocalEngine(MistralForCausalLM(MistralConfig(**{**small, "sliding_window": None})))

    @pytest.mark.parametrize("kind", ["dynamic", "longrope"])
    def test_positions_that_move_as_the_context_grows(self, kind):
        from transformers import LlamaConfig, LlamaForCausalLM

        small = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        small |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 64}
        rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 32}
        if kind == "longrope":
            rope |= {"short_factor": [1.0, 1.0], "long_factor": [2.0, 3.0]}
        with pytest.raises(EngineError, match=f"LlamaForCausalLM has RoPE of type {kind}: .* not supported"):
            LocalEngine(LlamaForCausalLM(LlamaConfig(**small, rope_parameters=rope)))
        linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
        LocalEngine(LlamaForCausalLM(LlamaConfig(**small, rope_parameters=linear)))

    def test_heads_that_do_more_than_a_matrix(self):
        from transformers import GraniteConfig, GraniteForCausalLM

        config = GraniteConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            logits_scaling=0.01,
        )
        with pytest.raises(EngineError, match="does more to its logits than a linear head"):
            LocalEngine(GraniteForCausalLM(config))


class TestClose:
    async def test_those_who_wait_are_told(self):
        engine = LocalEngine(tiny(), max_batch=2)
        go_on = held_up(engine, 1)
        waiting = [asyncio.create_task(engine.generate(prompt(seed), sampling(seed, 60))) for seed in range(5)]
        await busy(engine, 1)
        closing = asyncio.create_task(engine.close())
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE)
        go_on.set()
        await closing
        assert [str(result) for result in results] == ["the engine was closed"] * 5
        with pytest.raises(EngineError, match="the engine was closed"):
            await engine.generate((5,), sampling(1))
        await engine.close()


class TestScripted:
    async def test_plays_the_script_and_is_certain(self):
        engine = ScriptedEngine(lambda context: (len(context), STOP))
        first = await engine.generate((1, 2, 3), sampling(0))
        second = await engine.generate((4,), sampling(0, max_tokens=1), first.handle)
        assert (first.token_ids, first.finish_reason) == ((3, STOP), "stop")
        assert (second.token_ids, second.finish_reason) == ((6,), "length")
        assert first.logprobs == first.entropies == first.top_entropies == (0.0, 0.0)
        assert await engine.score((1, 2, 3), (3, 8, 7)) == (0.0, float("-inf"), float("-inf"))
        await engine.publish({}, 4)
        assert (await engine.generate((1,), sampling(0))).versions == (4, 4)
        await engine.close()

    async def test_refusals(self):
        engine = ScriptedEngine(lambda context: ())
        with pytest.raises(EngineError, match="empty action"):
            await engine.generate((1,), sampling(0))
        with pytest.raises(EngineError, match="the prompt is empty"):
            await engine.generate((), sampling(0))
        with pytest.raises(EngineError, match="not str"):
            await engine.generate((1,), sampling(0), "handle")
