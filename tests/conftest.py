"""Shared by all rooms' tests: how hard hypothesis tries, and the helpers beside this file.

``make proof`` sets TURNWISE_PROOF=full; everything else runs fewer examples, the same ones each time.
"""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("reduced", max_examples=25, derandomize=True, **_common)
settings.register_profile("full", max_examples=500, **_common)
settings.load_profile("full" if os.environ.get("TURNWISE_PROOF") == "full" else "reduced")

sys.path.append(str(Path(__file__).parent))  # importlib mode does not; last, for the folders here are called like rooms
