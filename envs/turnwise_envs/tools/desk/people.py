"""Names for databases. Those of ``valid`` never occur in ``train``."""

from __future__ import annotations

from typing import NamedTuple

from turnwise_envs.dice import Dice


class Cast(NamedTuple):
    first: tuple[str, ...]
    last: tuple[str, ...]
    cities: tuple[str, ...]
    streets: tuple[str, ...]


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_TRAIN = Cast(
    _split("Ada Boris Clara Dario Elif Farid Greta Hugo Ines Jonas Kofi Lena Marta Nils Olga Pavel"),
    _split("Adler Bianchi Costa Demir Eriksen Fischer Gomez Hansen Ivanov Jansen Kovacs Lindt Moreau Novak"),
    _split("Berlin Lisbon Madrid Oslo Paris Prague Rome Vienna Warsaw Zurich"),
    ("Mill Lane", "Station Road", "Harbour Street", "Oak Avenue", "Church Square", "River Walk"),
)
_VALID = Cast(
    _split("Amara Bruno Chiara Dmitri Eva Felix Gita Henrik Isla Jorge Keiko Luca Mira Noor"),
    _split("Abbott Berg Castillo Dubois Engel Ferrari Grahn Horvat Iyer Jonker Keller Larsen"),
    _split("Athens Brussels Dublin Geneva Helsinki Naples Porto Riga Seville Tallinn"),
    ("Castle Hill", "Garden Row", "Market Street", "Pine Close", "Abbey Road", "Bridge Street"),
)


def cast(split: str) -> Cast:
    return _TRAIN if split == "train" else _VALID


def code(dice: Dice, letters: int, digits: int, alphabet: str = "ABCDEFGHJKLMNPQRSTUVWXYZ") -> str:
    """A number as customers have them: ``KX4821``."""
    return "".join(dice.pick(alphabet) for _ in range(letters)) + "".join(dice.pick("23456789") for _ in range(digits))
