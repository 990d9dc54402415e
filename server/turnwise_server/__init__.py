"""Turnwise server: environments as an HTTP service that speaks the v1 protocol.

``turnwise serve household`` runs it; :func:`turnwise_server.app.create_app` builds the same service as an ASGI app.
"""
