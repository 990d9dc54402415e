"""ALFWorld's own engine: household worlds exported to it, and its data set as the environment ``alfworld``.

``export`` writes household worlds as its games, ``engine`` plays one, ``games`` and ``tasks`` are its data set,
``env`` puts it behind the protocol. Needs ``pip install 'turnwise[alfworld]'``; importing this does not.
"""

from turnwise_envs.alfworld.env import alfworld
from turnwise_envs.alfworld.export import write_game

__all__ = ["alfworld", "write_game"]
