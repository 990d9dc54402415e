"""Words that several domains draw names from."""

from __future__ import annotations

FIRST_NAMES = (
    "Ada", "Amir", "Anna", "Bela", "Boris", "Carla", "Chen", "Clara", "Dario", "Dora", "Elif", "Emil", "Esra",
    "Eva", "Farid", "Fiona", "Georg", "Grace", "Hana", "Hugo", "Ida", "Igor", "Ines", "Ivan", "Jana", "Jonas",
    "Julia", "Kaan", "Karin", "Kofi", "Lara", "Leo", "Lina", "Luis", "Maja", "Marek", "Mia", "Milan", "Nadia",
    "Nils", "Nora", "Omar", "Oskar", "Paula", "Pedro", "Petra", "Ravi", "Rosa", "Sami", "Sara", "Selma",
    "Simon", "Sofia", "Tariq", "Tea", "Theo", "Uma", "Vera", "Viktor", "Wanda", "Yara", "Yusuf", "Zoe",
)  # fmt: skip

LAST_NAMES = (
    "Abbas", "Adler", "Almeida", "Baker", "Becker", "Bianchi", "Bruun", "Castro", "Chang", "Costa", "Dahl",
    "Diallo", "Duarte", "Eriksen", "Evans", "Farkas", "Ferrari", "Fischer", "Fontaine", "Garcia", "Gruber",
    "Haas", "Hansen", "Ito", "Ivanov", "Jansen", "Jensen", "Kaya", "Keller", "Kim", "Kovacs", "Kowalski",
    "Kumar", "Lang", "Larsen", "Lehmann", "Lopez", "Maier", "Marino", "Mendes", "Meyer", "Moreau", "Mori",
    "Nagy", "Novak", "Okafor", "Olsen", "Park", "Patel", "Pereira", "Popov", "Ricci", "Rossi", "Sato", "Schmid",
    "Silva", "Singh", "Smit", "Sorensen", "Svoboda", "Tanaka", "Torres", "Vargas", "Virtanen", "Wagner",
    "Weber", "Wong", "Yilmaz", "Zimmer",
)  # fmt: skip

CITIES = ("Lisbon", "Vienna", "Oslo", "Porto", "Graz", "Bergen", "Ghent", "Lyon", "Turin", "Gdansk", "Tartu", "Cork")

COUNTRIES = {
    "DE": "Germany",
    "FR": "France",
    "PT": "Portugal",
    "AT": "Austria",
    "NO": "Norway",
    "PL": "Poland",
    "IT": "Italy",
    "EE": "Estonia",
}

PERSON = (FIRST_NAMES, LAST_NAMES)
