"""Wrappers: noise, budgets and help around any environment, chosen per session by the option ``wrappers``.

    Noisy = wrap(Household)
    episode = await LiveEpisode.start(Noisy, "train", 0, seed=3, options={"wrappers": {"sticky_actions": {}}})

or ``turnwise serve wrapped:household``. ``settings`` is what there is, ``course`` what it does, ``noise`` the text,
``wrapped`` the environments.
"""

from turnwise_envs.wrappers.settings import KINDS, Wrappers
from turnwise_envs.wrappers.wrapped import wrap

__all__ = ["KINDS", "Wrappers", "wrap"]
