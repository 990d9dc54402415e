"""Text to SQL: questions about databases, answered in turns and scored by execution on several databases.

``schema``, ``domains`` and ``generate`` make databases, ``conditions``, ``questions`` and ``windows`` ask about them,
``library`` puts both together; ``folders`` reads Spider and BIRD. ``sandbox`` (with ``statement`` and ``functions``) runs
what nobody has vetted; ``compare``, ``judge`` and ``rewards`` score it; ``env`` puts all of it behind the protocol.
"""

from turnwise_envs.sql.env import Sql

__all__ = ["Sql"]
