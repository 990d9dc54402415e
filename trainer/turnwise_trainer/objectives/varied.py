"""Dynamic sampling's filter, from DAPO (arXiv 2503.14476)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import entry
from turnwise_trainer.view import BatchView, Floats


class Varied(Settings):
    tolerance: float = Field(
        default=1e-9, ge=0.0, description="Outcomes that differ by no more than this count as equal."
    )


@entry("select", "varied")
def varied(view: BatchView, reward_S: Floats, settings: Varied) -> NDArray[np.bool_]:
    """Drop groups whose outcomes are all equal: relative advantages are 0 there.

    A group of one episode stays, as its advantage is its outcome.
    """
    outcome_N = view.sum_rows(reward_S)
    kept = [
        len(outcomes := outcome_N[view.group_N == number]) == 1 or np.ptp(outcomes) > settings.tolerance
        for number in range(len(view.groups))
    ]
    return np.array(kept, dtype=np.bool_)
