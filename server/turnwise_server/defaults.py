"""Default settings, apart from :mod:`turnwise_server.settings` so that ``turnwise --help`` imports nothing heavy."""

HOST = "127.0.0.1"
PORT = 8000
#: Seconds for one call into an environment. A model's tool call rarely needs more, and a hung one frees its turn.
STEP_TIMEOUT = 30.0
#: Live sessions; finished ones are kept besides, up to the same number again.
MAX_SESSIONS = 4096
#: Seconds without a request after which a session is given up: longer than a slow model or a weight update.
IDLE_TIMEOUT = 3600.0
#: Bytes of a request body: a replayed log of some hundred turns fits.
MAX_BODY = 4 * 1024 * 1024
