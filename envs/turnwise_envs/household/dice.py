"""The household's chance is everybody's: see :mod:`turnwise_envs.dice`."""

from turnwise_envs.dice import Dice, stable_hash

__all__ = ["Dice", "stable_hash"]
