"""Service desks, in the manner of tau-bench: a database, rules, and a scripted customer who tells what is asked.

``database`` is the value that all of it is about, ``customer`` the dialogue of the scripted customer, ``scenario`` what a
task consists of, ``env`` the environment of both applications, ``airline`` and ``shop`` (each rules and tools) with
``airline_cases`` and ``shop_cases`` (what customers want there; ``cases`` has what is common to both).
"""

from turnwise_envs.tools.desk.airline import AirlineDesk
from turnwise_envs.tools.desk.shop import ShopDesk

__all__ = ["AirlineDesk", "ShopDesk"]
