"""Imitation: demonstrations are the expert's, noise is noise, and a policy comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from word_worlds import ASK, Bandit, Mute

from turnwise_agent.renderer import Renderer
from turnwise_envs import load
from turnwise_envs.episode import LiveEpisode
from turnwise_trainer.errors import ImitationError, ModelError
from turnwise_trainer.imitation import (
    Demonstration,
    ImitationSettings,
    Kind,
    Recording,
    demonstrate,
    imitate,
    make_policy,
)
from turnwise_trainer.models import load_model, make_tiny_model, make_tokenizer

SMALL = ImitationSettings(demos=8, epochs=30, lr=1e-2, batch=4, hidden=16, layers=1)


def said(recordings: Sequence[Recording]) -> list[list[str]]:
    return [texts(recording.episode) for recording in recordings]


def texts(episode: LiveEpisode) -> list[str]:
    return [record.action.text for record in episode.records if record.action is not None]


def bandit(demos: int, noise: float = 0.0, seed: int = 0) -> ImitationSettings:
    return ImitationSettings(demos=demos, noise=noise, seed=seed)


async def test_without_noise_a_demonstration_is_the_experts() -> None:
    settings = ImitationSettings(demos=2)
    household = load("household")
    expected = []
    for index in range(settings.demos):
        episode = await LiveEpisode.start(household, "train", index)
        while not episode.done:
            action = episode.env.expert_action()
            assert action is not None
            await episode.step(action)
        expected.append(episode)
    recordings = await demonstrate(household, settings, {})
    assert said(recordings) == [texts(episode) for episode in expected]
    assert not any(recording.slips for recording in recordings)
    assert all(episode.records[-1].result.info.end == "solved" for episode in expected)


async def test_half_of_the_slips_are_admissible_and_half_are_the_experts_from_elsewhere() -> None:
    options = {"turns": 10}
    noisy = said(await demonstrate(Bandit, bandit(6, noise=0.5), options))
    letters = [letter for row in noisy for letter in row]
    # The expert only ever says "b". A slip is another letter in half of three of four cases: 60 * 0.5 * 3/8 = 11.25
    # expected, standard deviation 3.0.
    assert 2 <= 60 - letters.count("b") <= 21
    assert set(letters) == {"a", "b", "c", "d"}
    assert noisy == said(await demonstrate(Bandit, bandit(6, noise=0.5), options))
    assert noisy != said(await demonstrate(Bandit, bandit(6, noise=0.5, seed=1), options))


async def test_slips_show_how_one_goes_on_after_a_mistake() -> None:
    """What the expert said elsewhere mostly fails here; what follows it is the expert's again."""
    family = {"family": ["pick_heat_then_place_in_recep"]}
    settings = ImitationSettings(demos=20, noise=0.5, where=family)
    failed = [
        record
        for recording in await demonstrate(load("household"), settings, {})
        for record in recording.episode.records
        if record.result.observation.text.startswith("Nothing happens.")
    ]
    assert len(failed) > 20  # of some 20 * 15 turns a quarter are slips of this kind, most of which fail


async def test_a_demonstration_ends_when_the_expert_believes_that_it_is_done() -> None:
    settings = ImitationSettings(demos=4, where={"family": ["pick_heat_then_place_in_recep"]})
    careless = await demonstrate(load("household"), settings, {"careless_expert": 1.0})
    assert all(
        not recording.episode.done and texts(recording.episode)[-1].startswith("move ") for recording in careless
    )


async def test_nothing_to_imitate() -> None:
    with pytest.raises(ImitationError, match="'mute' has no expert"):
        await demonstrate(Mute, bandit(1), {})


async def test_a_demonstration_is_what_the_policy_would_have_seen() -> None:
    (recording,) = await demonstrate(Bandit, bandit(1), {"turns": 2})
    renderer = Renderer(make_tokenizer([ASK], vocab_size=262))
    demonstration = Demonstration.of(recording, renderer)
    ask = list(f"{ASK}".encode())
    names = renderer.tokenizer.convert_ids_to_tokens(list(demonstration.ids))
    one = ["<|user|>", *map(chr, ask), "<|assistant|>"]
    assert names == [*one, "b", "<|end|>", *one, "b", "<|end|>"]
    of_kind = {kind: [n for n, k in zip(names, demonstration.kinds, strict=True) if k is kind] for kind in Kind}
    assert of_kind == {Kind.IGNORED: [], Kind.OBSERVATION: one * 2, Kind.ACTION: ["b", "<|end|>"] * 2}
    slipped = Demonstration.of(replace(recording, slips=frozenset({0})), renderer)
    assert slipped.ids == demonstration.ids
    own = len(one)
    assert slipped.kinds[own : own + 2] == (Kind.IGNORED, Kind.IGNORED)
    assert slipped.kinds[own + 2 :] == demonstration.kinds[own + 2 :]


async def test_slips_are_not_learned() -> None:
    """Half of the letters are slips, of which six in sixteen are not the expert's; the model still learns his only."""
    recordings = await demonstrate(Bandit, bandit(6, noise=0.5), {"turns": 10})
    for recording in recordings:
        strays = {turn for turn, text in enumerate(texts(recording.episode)) if text != "b"}
        assert strays <= recording.slips
    assert 15 <= sum(len(recording.slips) for recording in recordings) <= 45
    tokenizer = make_tokenizer([ASK], vocab_size=262)
    model = make_tiny_model(tokenizer, hidden=16, layers=1, heads=2)
    assert imitate(model, [Demonstration.of(r, Renderer(tokenizer)) for r in recordings], SMALL) < 0.1


async def test_a_tiny_model_learns_the_expert_by_heart() -> None:
    recordings = await demonstrate(Bandit, SMALL_DEMOS := bandit(6), {})
    tokenizer = make_tokenizer([ASK], vocab_size=262)
    renderer = Renderer(tokenizer)
    model = make_tiny_model(tokenizer, hidden=16, layers=1, heads=2)
    seen: list[tuple[int, int, float]] = []
    demonstrations = [Demonstration.of(recording, renderer) for recording in recordings]
    loss = imitate(model, demonstrations, SMALL, lambda *step: seen.append(step))
    assert SMALL_DEMOS.noise == 0.0
    assert loss < 0.1 < 3.0 < seen[0][2]
    assert [done for done, _, _ in seen] == list(range(1, 61))  # 30 epochs of ceil(6 / 4)
    assert {total for _, total, _ in seen} == {60}
    prompt = torch.tensor([renderer.first(recordings[0].episode.initial.messages)])
    assert renderer.decode([int(model(input_ids=prompt).logits[0, -1].argmax())]) == "b"


async def test_make_policy_writes_a_checkpoint_to_start_from(tmp_path: Path) -> None:
    class Wide(Bandit):
        """As many tasks as a tokenizer wants to see."""

        spec = Bandit.spec.model_copy(update={"splits": [Bandit.spec.splits[0].model_copy(update={"size": None})]})
        tasks = type(Bandit.tasks)(spec, lambda split, index: ASK)

    loss = await make_policy(Wide, SMALL, tmp_path / "one")
    model, tokenizer = load_model(tmp_path / "one")
    assert Renderer(tokenizer).stop_ids
    assert model.config.hidden_size == 16
    again = await make_policy(Wide, SMALL, tmp_path / "two", start_from=tmp_path / "one")
    assert again < loss
    with pytest.raises(ModelError):
        await make_policy(Wide, SMALL, tmp_path / "three", start_from=tmp_path / "nowhere")
    assert not (tmp_path / "three").exists()
