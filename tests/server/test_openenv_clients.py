"""OpenEnv's own clients, unchanged, against our server: packages ``openenv`` 0.10 and ``openenv-core`` 0.3.0.

`make install` puts the two beside the virtual environment without their dependencies (they exclude each other, and
bring Gradio); each runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import toy_environments as toys
from live_server import live
from test_openenv import Calculator

from turnwise_envs.household import Household

HERE = Path(__file__).parent
PACKAGES = Path(sys.prefix) / "openenv"


@pytest.fixture(params=["0.10.0", "0.3.0"])
def version(request):
    if not (PACKAGES / request.param / "openenv").is_dir():
        pytest.skip(f"OpenEnv {request.param} is not beside the virtual environment: make install")
    return request.param


@pytest.fixture
def play(version):
    """``await play(scenario, address)``: what the scenario of openenv_player.py says."""

    async def run(scenario, address):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            HERE / "openenv_player.py",
            scenario,
            f"http://{address}",
            env={**os.environ, "PYTHONPATH": str(PACKAGES / version)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 240)
        assert process.returncode == 0, err.decode()[-3000:]
        return json.loads(out)

    return run


async def test_an_episode(play):
    async with live([toys.Guess]) as (address, _):
        said = await play("episode", address)
    assert said["first"] == ["Guess a number from 0 to 99.", None, False]
    assert said["states"] == ["mine", 0, 2]
    assert said["steps"] == [[0.0, False, 1], [1.0, True, 2]]
    assert said["again"] == "guess/train/6"


async def test_without_await(play):
    async with live([toys.Guess]) as (address, _):
        assert await play("in_words_of_sync", address) == [0.0, 1.0, 2]


async def test_one_of_several_environments(play):
    async with live([toys.Guess, toys.Slow]) as (address, _):
        assert await play("in_words_of_sync", f"{address}/openenv/guess") == [0.0, 1.0, 2]


async def test_two_hundred_sessions_at_once(play):
    async with live([toys.Guess]) as (address, _):
        assert await play("many", address) == [[0.0, 0.0, 0.0, 1.0, 4]] * 200


async def test_after_a_timeout_replies_belong_to_their_requests(play, version):
    async with live([toys.Slow]) as (address, _):
        timeout, second, third, turns = await play("timeout", address)
    assert timeout == "timeout"
    if version == "0.3.0":  # goes on with the same socket, where both steps happened
        assert (second, third) == ("slept, second", "slept, third")
    else:  # makes a new socket and does not say so; the server does
        assert "reset first" in second
        assert "reset first" in third
        assert turns == 1


async def test_capacity(play):
    async with live([toys.Guess], max_sessions=1) as (address, _):
        said, steps = await play("capacity", address)
    assert "CAPACITY_REACHED" in said
    assert steps == 0


async def test_tools(play):
    async with live([Calculator]) as (address, _):
        assert await play("tools", address) == [["add"], "5", "23"]


async def test_the_program_in_the_manual(play):
    async with live([Household]) as (address, _):
        said = await play("page", address)
    assert said.startswith("0.0 {")
    assert "household/train/17" in said
