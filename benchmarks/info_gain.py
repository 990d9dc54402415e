"""What answer probes cost: the engine's time of episodes with a probe before every turn, over its time without.

    python benchmarks/info_gain.py            # about a minute on one core
    python benchmarks/info_gain.py --quick    # seconds: that it works, not what it costs
    python benchmarks/info_gain.py --observation 8    # the dearest case: there is little else to read

Groups of episodes that share their prompt are played against canned observations of a search environment's size. Both sides
draw the same tokens. They take turns, and each ratio is of two runs beside each other, so a machine that is busy with
other things disturbs both alike; on the CPU it is the processor's time for this process that counts. The last line is
everything as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from turnwise_agent.engines.base import Sampling
from turnwise_agent.engines.local import LocalEngine

#: Tokens that a turn generates.
LENGTHS = (4, 8, 16, 32, 64, 128)
#: From here on, probes should cost at most so much.
AIM_FROM, AIM = 32, 0.25


@dataclass(frozen=True)
class Shape:
    """The model and the episodes. ``answer`` tokens are scored after ``template`` tokens (the paper's has 17 in Qwen's)."""

    hidden: int = 128
    layers: int = 3
    vocabulary: int = 1024
    groups: int = 4
    members: int = 4
    turns: int = 5
    prompt: int = 120
    observation: int = 60
    template: int = 17
    answer: int = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hidden", type=int, default=Shape.hidden)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--observation", type=int, default=Shape.observation, help="tokens that a turn reads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = Shape(hidden=arguments.hidden, layers=arguments.layers, observation=arguments.observation)
    if arguments.quick:
        shape = Shape(hidden=32, layers=1, vocabulary=64, groups=1, members=2, turns=2, prompt=20, observation=8)
    model = tiny(shape).to(arguments.device)
    lengths = LENGTHS[:2] if arguments.quick else LENGTHS
    print("tokens a turn   without     with   more")
    measure(model, shape, lengths[0], 1)  # warms up
    curve = []
    for length in lengths:
        point = measure(model, shape, length, 1 if arguments.quick else arguments.repetitions)
        print(
            f"{length:13} {point['without_s']:8.3f}s {point['with_s']:7.3f}s  {point['more']:+.1%}",
            flush=True,
        )
        curve.append(point)
    met = all(point["more"] <= AIM for point in curve if point["tokens"] >= AIM_FROM)
    if not arguments.quick:
        print(f"at most {AIM:.0%} more from {AIM_FROM} tokens on: {'met' if met else 'missed'}")
    print(
        json.dumps(
            {
                "benchmark": "info_gain",
                "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "device": arguments.device},
                "threads": arguments.threads,
                "torch": torch.__version__,
                "shape": asdict(shape),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "curve": curve,
                "aim": {"from": AIM_FROM, "at_most": AIM, "met": met if not arguments.quick else None},
            }
        )
    )


def tiny(shape: Shape) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=shape.hidden // 4,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config)


def measure(model: Any, shape: Shape, tokens: int, repetitions: int) -> dict[str, Any]:
    """The median of paired ratios; which side goes first alternates."""
    pairs: list[tuple[float, float]] = []
    for repetition in range(repetitions):
        order = (False, True) if repetition % 2 else (True, False)
        seconds = {probed: asyncio.run(played(model, shape, tokens, probed=probed)) for probed in order}
        pairs.append((seconds[False], seconds[True]))
    return {
        "tokens": tokens,
        "without_s": round(median(without for without, _ in pairs), 4),
        "with_s": round(median(probed for _, probed in pairs), 4),
        "more": round(median(probed / without for without, probed in pairs) - 1.0, 4),
        "runs": [round(probed / without - 1.0, 4) for without, probed in pairs],
    }


async def played(model: Any, shape: Shape, tokens: int, *, probed: bool) -> float:
    """Seconds that the engine computes for all episodes."""
    engine = LocalEngine(model)
    try:
        began = time.process_time()
        await asyncio.gather(*(group(engine, shape, tokens, number, probed) for number in range(shape.groups)))
        return time.process_time() - began if model.device.type == "cpu" else engine.stats.seconds
    finally:
        await engine.close()


async def group(engine: LocalEngine, shape: Shape, tokens: int, number: int, probed: bool) -> None:
    """Episodes that share their first prompt, and its probe, as the rollout engine draws them."""
    target = words(shape, 5000 + number, shape.template + shape.answer)

    async def episode(member: int) -> None:
        handle: object | None = None
        for turn in range(shape.turns):
            seed = (number, member, turn)
            prompt = words(shape, number, shape.prompt) if turn == 0 else words(shape, hash(seed), shape.observation)
            calls: list[Awaitable[Any]] = [engine.generate(prompt, Sampling(tokens, (), seed=seed), handle)]
            if probed and (turn > 0 or member == 0):
                calls.append(engine.score(prompt, target, handle, given=shape.template))
            handle = (await asyncio.gather(*calls))[0].handle

    await asyncio.gather(*(episode(member) for member in range(shape.members)))


def words(shape: Shape, seed: int, count: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed % 2**31)
    return tuple(torch.randint(shape.vocabulary, (count,), generator=generator).tolist())


if __name__ == "__main__":
    main()
