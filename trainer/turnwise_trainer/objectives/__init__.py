"""The objectives that come with Turnwise, one page each. Every module here is found by being here.

A page holds entries (functions marked with ``@entry``) and may hold a ``PRESET``; see docs/objectives.md.
"""
