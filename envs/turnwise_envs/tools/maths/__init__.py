"""Maths: generated problems for a Python interpreter in a sandbox, and colleagues who can be asked, at a price.

``families`` draws the problems, ``answers`` compares results by value, ``consult`` is the colleagues, ``tasks`` the task
set, ``env`` puts it behind the protocol; :mod:`turnwise_envs.tools.sandbox` runs the programs.
"""

from turnwise_envs.tools.maths.env import Maths

__all__ = ["Maths"]
