"""``python -m turnwise_envs`` is the ``turnwise`` command, for where the console script is not on the path."""

from turnwise_envs.cli import app

app()
