"""Household: chores in text, after ALFWorld (Shridhar et al. 2021), without its simulator or its data.

``tables`` is the data, ``plans`` and ``generate`` draw worlds from it, ``world`` and ``rules`` are the game, ``text``
its sentences, ``expert`` plays it honestly, ``env`` puts it behind the protocol.
"""

from turnwise_envs.household.env import Household

__all__ = ["Household"]
