"""Search: multi-hop questions answered by searching, over generated worlds or a corpus of one's own.

``tables``, ``world``, ``generate`` and ``questions`` draw worlds and ask about them; ``corpus`` and ``files`` read
documents and questions from files; ``retrievers`` and ``library`` find documents; ``protocol``, ``state``, ``rewards``,
``options`` and ``env`` are the episode; ``expert`` plays it; ``catalog`` makes the classes.
"""

from turnwise_envs.search.catalog import Search, search

__all__ = ["Search", "search"]
