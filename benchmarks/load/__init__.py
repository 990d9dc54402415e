"""The parts of ``benchmarks/server_load.py``: servers, players that drive them, and the report.

Each server and each player is a process of its own. ``python -m load.player KIND URL`` is a player, ``python -m
load.bare`` and ``python -m load.openenv_server`` are servers to compare with.
"""
