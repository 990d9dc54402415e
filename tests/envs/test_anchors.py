"""Every environment of ours has an anchor (GiGPO): a state key at each turn, the same for all members of a group."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from turnwise_envs import load
from turnwise_envs.episode import LiveEpisode

NEEDS = {"search": "bm25s", "sql": "sqlite_utils"}


@pytest.mark.parametrize("env_id", ["household", "search", "sql", "airline-desk", "shop-desk", "calls", "maths"])
async def test_every_observation_has_a_state_key(env_id: str) -> None:
    if env_id in NEEDS and importlib.util.find_spec(NEEDS[env_id]) is None:
        pytest.skip(f"needs the package {NEEDS[env_id]}")
    if env_id == "maths" and shutil.which("bwrap") is None:
        pytest.skip("needs PROGRAM: bwrap")
    members = [await LiveEpisode.start(load(env_id), "train", 1, seed) for seed in (0, 1)]
    keys = []
    while not members[0].done:
        keys.append([member.observation.state_key for member in members])
        action = members[0].env.expert_action()
        assert action is not None
        for member in members:
            await member.step(action)
    assert all(isinstance(one, str) and one == other for one, other in keys)
    elsewhere = await LiveEpisode.start(load(env_id), "train", 2)
    assert elsewhere.observation.state_key != keys[0][0]
    for episode in (*members, elsewhere):
        await episode.close()
