"""Our environments as others expect them: an MCP server, a Gymnasium environment. One module each.

``texts`` is what the Gymnasium environments of this process and of a server (:mod:`turnwise_agent.gym`) have in common.
"""
