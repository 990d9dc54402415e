"""A terminal picture as plain text: escape codes go, and what was in colour is said in words below it.

Colour can be all that shows where the player is (FrozenLake), or who waits where (Taxi), so it must not be lost.
"""

from __future__ import annotations

import re

_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_OTHER = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ECHO = re.compile(r"\s*\(\w+\)\s*")
_NAMES = ("gray", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def plain(picture: str) -> str:
    """The picture without codes, and one line ``In colour: "S" in row 1, column 1 (red background).`` if there was any.

    Lines that only repeat the last action, ``  (South)``, are dropped, as are empty lines around the picture.
    """
    lines = [line.rstrip() for line in picture.splitlines() if not _ECHO.fullmatch(_SGR.sub("", line))]
    while lines and not _SGR.sub("", lines[0]).strip():
        del lines[0]
    while lines and not _SGR.sub("", lines[-1]).strip():
        del lines[-1]
    coloured: list[str] = []
    shown = []
    for row, line in enumerate(lines, 1):
        text, marks = _without_colour(_OTHER.sub(lambda code: code[0] if _SGR.fullmatch(code[0]) else "", line))
        shown.append(text)
        coloured += [f'"{characters}" in row {row}, column {column} ({colour})' for column, characters, colour in marks]
    if coloured:
        shown.append(f"In colour: {'; '.join(coloured)}.")
    return "\n".join(shown)


def _without_colour(line: str) -> tuple[str, list[tuple[int, str, str]]]:
    """The text, and each coloured run as (column from 1, characters, colour)."""
    text, at = "", 0
    ink = paper = ""
    marks: list[tuple[int, str, str]] = []
    for code in [*_SGR.finditer(line), None]:
        run = line[at : code.start() if code else len(line)]
        if run and (ink or paper):
            colour = " on ".join(filter(None, (ink, paper))) if ink and paper else ink or f"{paper} background"
            marks.append((len(text) + 1, run, colour))
        text += run
        if code is None:
            break
        at = code.end()
        for number in [int(each or 0) for each in code[1].split(";")]:
            if number == 0:
                ink = paper = ""
            elif 30 <= number <= 37 or 90 <= number <= 97:
                ink = _NAMES[number % 10]
            elif 40 <= number <= 47 or 100 <= number <= 107:
                paper = _NAMES[number % 10]
    return text, marks
