"""Function calls held against gold ones, in the manner of BFCL (the Berkeley Function Calling Leaderboard).

``library`` has the functions and how people ask for them, ``cases`` draws tasks of each category, ``reading`` finds calls in
text, ``matching`` holds them against the gold ones, ``env`` puts it behind the protocol.
"""

from turnwise_envs.tools.calls.env import Calls

__all__ = ["Calls"]
