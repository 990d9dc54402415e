"""Our environments as others expect them: an MCP server, a Gymnasium environment. One module each."""
