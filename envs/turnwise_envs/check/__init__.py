"""The conformance checker: does an environment keep the contract of ``turnwise_envs.environment``?

    report = check_env("household")
    assert report.ok, report

It drives the environment through :class:`~turnwise_envs.episode.LiveEpisode`, as a server would, and then checks
what the rest of Turnwise is built on: that an episode is a function of its actions, here, in another process and in
a fork, that no policy can make it raise, and that the answers stay hidden. Each failure says what the contract is,
what was seen, where, and what to do.
"""

from turnwise_envs.check.report import Finding, Report
from turnwise_envs.check.runner import CHECKS, check_env

__all__ = ["CHECKS", "Finding", "Report", "check_env"]
