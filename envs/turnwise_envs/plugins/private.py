"""Secrets that a foreign service needs: named on the command line, read from the environment, never shown.

A header is written with the name of a variable in the place of the secret, ``Authorization: Bearer $API_TOKEN``. Only
that text travels (to other processes, into messages); the value is read where the request is made. Should the service
echo it, :meth:`Headers.hide` takes it out of what a policy or a log would see.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from string import Template

HIDDEN = "[hidden]"
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*:\s*(\S.*)")


class Headers:
    """Headers from one line of text, several separated by newlines. Raises ValueError, without the text's secrets."""

    def __init__(self, text: str | None) -> None:
        self._templates: dict[str, Template] = {}
        for line in (text or "").splitlines():
            found = _HEADER.fullmatch(line.strip())
            if found is None:
                raise ValueError("a header is written as 'Authorization: Bearer $API_TOKEN', in single quotes")
            template = Template(found[2])
            if not template.is_valid() or not template.get_identifiers():
                raise ValueError(
                    f"the value of header {found[1]} must name an environment variable, as in 'Bearer $API_TOKEN' "
                    "(in single quotes), so that the secret itself is not on the command line"
                )
            self._templates[found[1]] = template
        missing = [name for name in self.variables if name not in os.environ]
        if missing:
            raise ValueError(f"environment variable {missing[0]} is not set")

    @property
    def variables(self) -> list[str]:
        return [name for template in self._templates.values() for name in template.get_identifiers()]

    def values(self) -> dict[str, str]:
        """The headers with their secrets."""
        return {name: template.substitute(os.environ) for name, template in self._templates.items()}

    def hide(self, text: str) -> str:
        """``text`` without the secrets, should it have them."""
        return hidden(text, (os.environ.get(name, "") for name in self.variables))


def hidden(text: str, secrets: Iterable[str]) -> str:
    """``text`` without ``secrets``; those of less than four characters are no secrets."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, HIDDEN)
    return text


def child_environment(names: str | None) -> dict[str, str]:
    """What a child process gets of our environment: locale, a folder for temporary files, and the variables ``names``.

    ``names`` are separated by commas. ``PATH``, ``HOME`` and the like are added by whoever starts the process. Raises
    ValueError for a name that is not set.
    """
    ours: Mapping[str, str] = os.environ
    kept = {name: ours[name] for name in ("LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ") if name in ours}
    for name in filter(None, (one.strip() for one in (names or "").split(","))):
        if name not in ours:
            raise ValueError(f"environment variable {name} is not set")
        kept[name] = ours[name]
    return kept
