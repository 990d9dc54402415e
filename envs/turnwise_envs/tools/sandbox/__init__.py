"""Python programs of strangers, run in a bubblewrap sandbox: one process a program, gone with it.

::

    outcome = run_python("sum(range(10))")
    outcome.text      # "45\n"
    outcome.status    # "ok"

``inside`` is what runs in there, ``seccomp`` what it may not ask of the kernel, ``bwrap`` how it is walled in, and
``run`` starts it, reads what it says and ends it in time.
"""

from turnwise_envs.tools.sandbox.bwrap import SandboxUnavailable
from turnwise_envs.tools.sandbox.run import LIMITS, Limits, Outcome, require_sandbox, run_python

__all__ = ["LIMITS", "Limits", "Outcome", "SandboxUnavailable", "require_sandbox", "run_python"]
