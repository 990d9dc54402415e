"""What the household world is made of: rooms, what holds what, what can be done to what, and how tasks are put.

Names and the relation "may hold" follow ALFWorld (lower-case THOR types, sliced things left out: here slicing is
a state of a thing). Everything else in this package is rules over these tables.
"""

from __future__ import annotations

from dataclasses import dataclass


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """``"bed: book pillow"`` lines as ``{"bed": ("book", "pillow")}``; an indented line continues the one above."""
    rows: dict[str, tuple[str, ...]] = {}
    key = ""
    for line in text.strip().splitlines():
        if not line.startswith(" "):
            key, _, line = line.partition(":")
            rows[key] = ()
        rows[key] += tuple(line.split())
    return rows


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


OPENABLE = frozenset({"cabinet", "drawer", "fridge", "microwave", "safe"})

#: Things that are themselves containers; looking at one lists what is in it (nothing: stacking is not modelled).
MOVABLE_RECEPTACLES = frozenset({"bowl", "box", "cup", "mug", "pan", "plate", "pot"})

#: Lamps stand where they are: they can be switched on but not carried.
LAMPS = frozenset({"desklamp", "floorlamp"})

KNIVES = frozenset({"butterknife", "knife"})
SLICEABLE = frozenset({"apple", "bread", "egg", "lettuce", "potato", "tomato"})

_HOLDS = _table("""
armchair: basketball book box cellphone cloth creditcard keychain laptop newspaper pillow remotecontrol
bathtubbasin: cloth dishsponge handtowel soapbar
bed: baseballbat basketball book cellphone laptop newspaper pillow tennisracket
cabinet: book bowl box candle cd cloth cup dishsponge glassbottle handtowel kettle ladle mug newspaper pan
    peppershaker plate plunger pot saltshaker soapbar soapbottle spraybottle tissuebox toiletpaper
    toiletpaperroll vase wateringcan winebottle
coffeemachine: mug
countertop: alarmclock apple baseballbat basketball book bowl box bread butterknife candle cd cellphone cloth
    creditcard cup dishsponge egg fork glassbottle handtowel kettle keychain knife ladle laptop lettuce mug
    newspaper pan papertowel pen pencil peppershaker plate pot potato remotecontrol saltshaker soapbar
    soapbottle spatula spoon spraybottle statue tennisracket tissuebox toiletpaper toiletpaperroll tomato vase
    watch wateringcan winebottle
desk: alarmclock basketball book bowl box candle cd cellphone cloth creditcard cup glassbottle keychain laptop
    mug newspaper pen pencil plate remotecontrol soapbottle spraybottle statue tennisracket tissuebox
    toiletpaper toiletpaperroll vase watch wateringcan winebottle
drawer: book butterknife candle cd cellphone cloth creditcard dishsponge fork handtowel keychain knife ladle
    newspaper pen pencil peppershaker remotecontrol saltshaker soapbar soapbottle spatula spoon spraybottle
    tissuebox toiletpaper toiletpaperroll watch wateringcan
dresser: alarmclock basketball book bowl box candle cd cellphone cloth creditcard cup glassbottle keychain
    laptop mug newspaper pen pencil plate remotecontrol spraybottle statue tennisracket tissuebox toiletpaper
    toiletpaperroll vase watch wateringcan winebottle
fridge: apple bowl bread cup egg glassbottle lettuce mug pan plate pot potato tomato winebottle
garbagecan: apple bread cd cloth dishsponge egg handtowel lettuce newspaper papertowel pen pencil potato soapbar
    soapbottle spraybottle tissuebox toiletpaper toiletpaperroll tomato winebottle
handtowelholder: handtowel
laundryhamper: cloth
microwave: apple bowl bread cup egg glassbottle mug plate potato tomato
ottoman: basketball book box cellphone cloth creditcard keychain laptop newspaper pillow remotecontrol
safe: cd cellphone creditcard keychain statue vase watch
shelf: alarmclock book bowl box candle cd cellphone cloth creditcard cup dishsponge glassbottle handtowel kettle
    keychain mug newspaper papertowel pen pencil peppershaker plate pot remotecontrol saltshaker soapbar
    soapbottle spraybottle statue tissuebox toiletpaper toiletpaperroll vase watch wateringcan winebottle
sinkbasin: apple bowl butterknife cloth cup dishsponge egg fork glassbottle handtowel kettle knife ladle lettuce
    mug pan plate pot potato soapbar spatula spoon tomato
sofa: basketball book box cellphone cloth creditcard keychain laptop newspaper pillow remotecontrol
stoveburner: kettle pan pot
toaster:
toilet: candle cloth dishsponge handtowel newspaper papertowel soapbar soapbottle spraybottle tissuebox
    toiletpaper toiletpaperroll
toiletpaperhanger: toiletpaper toiletpaperroll
towelholder: towel
tvstand: tissuebox
""")

#: Receptacle type -> object types that may be put in or on it. Tables hold what a countertop holds.
HOLDS: dict[str, frozenset[str]] = {
    **{receptacle: frozenset(things) for receptacle, things in _HOLDS.items()},
    **{table: frozenset(_HOLDS["countertop"]) for table in ("coffeetable", "diningtable", "sidetable")},
}

#: How many things world generation puts in or on one receptacle; during play there is no limit, as in ALFWorld.
CAPACITY = {
    "coffeemachine": 1,
    "handtowelholder": 1,
    "microwave": 1,
    "stoveburner": 1,
    "toiletpaperhanger": 1,
    "towelholder": 1,
}
DEFAULT_CAPACITY = 3

#: Object type -> receptacle types where common sense looks first, best first.
LIKELY = _table("""
alarmclock: sidetable desk dresser shelf
apple: countertop fridge diningtable
baseballbat: bed desk
basketball: bed armchair desk
book: desk bed sofa shelf
bowl: cabinet countertop shelf diningtable
box: sofa coffeetable dresser
bread: countertop fridge diningtable
butterknife: drawer countertop
candle: countertop toilet shelf coffeetable
cd: desk drawer shelf safe
cellphone: bed sidetable desk sofa
cloth: bathtubbasin cabinet countertop laundryhamper
creditcard: sidetable coffeetable desk drawer
cup: cabinet countertop shelf
desklamp: desk sidetable dresser
dishsponge: sinkbasin countertop
egg: fridge countertop
floorlamp: sidetable coffeetable
fork: drawer countertop diningtable
glassbottle: countertop shelf cabinet
handtowel: handtowelholder countertop
kettle: stoveburner countertop cabinet
keychain: sidetable drawer coffeetable armchair
knife: drawer countertop
ladle: drawer countertop cabinet
laptop: desk bed sofa coffeetable
lettuce: fridge countertop
mug: coffeemachine cabinet countertop desk
newspaper: coffeetable sofa drawer
pan: stoveburner cabinet countertop
papertowel: countertop toilet
pen: desk drawer sidetable
pencil: desk drawer shelf
peppershaker: cabinet countertop drawer
pillow: bed sofa armchair
plate: cabinet countertop shelf
plunger: cabinet
pot: stoveburner cabinet fridge
potato: fridge countertop garbagecan
remotecontrol: sofa armchair coffeetable drawer
saltshaker: cabinet countertop drawer
soapbar: sinkbasin bathtubbasin toilet cabinet
soapbottle: countertop cabinet toilet
spatula: drawer countertop
spoon: drawer countertop
spraybottle: cabinet toilet countertop
statue: shelf dresser coffeetable sidetable
tennisracket: bed desk
tissuebox: toilet sidetable coffeetable dresser
toiletpaper: toiletpaperhanger toilet cabinet
toiletpaperroll: toiletpaperhanger cabinet toilet
tomato: fridge countertop
towel: towelholder
vase: shelf dresser coffeetable
watch: sidetable dresser safe shelf
wateringcan: shelf drawer sidetable
winebottle: fridge cabinet countertop
""")


@dataclass(frozen=True)
class Treatment:
    """A change of an object's state at an appliance: ``clean mug 1 with sinkbasin 1``."""

    verb: str
    station: str
    objects: tuple[str, ...]
    sets: str
    clears: str | None = None


TREATMENTS = {
    treatment.verb: treatment
    for treatment in (
        Treatment(
            "clean",
            "sinkbasin",
            _words(
                "apple bowl butterknife cloth cup dishsponge egg fork kettle knife ladle lettuce mug pan plate pot "
                "potato soapbar spatula spoon tomato"
            ),
            sets="clean",
        ),
        Treatment(
            "heat",
            "microwave",
            _words("apple bread cup egg mug plate potato tomato"),
            sets="hot",
            clears="cool",
        ),
        Treatment(
            "cool",
            "fridge",
            _words("apple bowl bread cup egg lettuce mug pan plate pot potato tomato winebottle"),
            sets="cool",
            clears="hot",
        ),
    )
}


@dataclass(frozen=True)
class Family:
    """One of the six task families: its two wordings, its rooms, and what the goal asks of the objects."""

    name: str
    wordings: tuple[str, str]
    rooms: tuple[str, ...]
    treatment: Treatment | None = None
    count: int = 1
    light: bool = False


ALL_ROOMS = ("kitchen", "bedroom", "livingroom", "bathroom")

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "pick_and_place_simple",
            ("put a {obj} in {recep}.", "put some {obj} on {recep}."),
            ALL_ROOMS,
        ),
        Family(
            "look_at_obj_in_light",
            ("look at {obj} under the {toggle}.", "examine the {obj} with the {toggle}."),
            ("bedroom", "livingroom"),
            light=True,
        ),
        Family(
            "pick_clean_then_place_in_recep",
            ("put a clean {obj} in {recep}.", "clean some {obj} and put it in {recep}."),
            ("kitchen", "bathroom"),
            treatment=TREATMENTS["clean"],
        ),
        Family(
            "pick_heat_then_place_in_recep",
            ("put a hot {obj} in {recep}.", "heat some {obj} and put it in {recep}."),
            ("kitchen",),
            treatment=TREATMENTS["heat"],
        ),
        Family(
            "pick_cool_then_place_in_recep",
            ("put a cool {obj} in {recep}.", "cool some {obj} and put it in {recep}."),
            ("kitchen",),
            treatment=TREATMENTS["cool"],
        ),
        Family(
            "pick_two_obj_and_place",
            ("put two {obj} in {recep}.", "find two {obj} and put them in {recep}."),
            ALL_ROOMS,
            count=2,
        ),
    )
}


@dataclass(frozen=True)
class Room:
    """A room type: how many receptacles of each type a floor plan may have, and what lies about in it."""

    receptacles: dict[str, tuple[int, int]]
    objects: tuple[str, ...]
    lamp: str | None = None


ROOMS = {
    "kitchen": Room(
        receptacles={
            "cabinet": (1, 4),
            "coffeemachine": (1, 1),
            "countertop": (1, 2),
            "diningtable": (0, 1),
            "drawer": (1, 3),
            "fridge": (1, 1),
            "garbagecan": (1, 1),
            "microwave": (1, 1),
            "shelf": (0, 2),
            "sidetable": (0, 1),
            "sinkbasin": (1, 1),
            "stoveburner": (1, 2),
            "toaster": (0, 1),
        },
        objects=_words(
            "apple bowl bread butterknife cup dishsponge egg fork glassbottle kettle knife ladle lettuce mug pan "
            "peppershaker plate pot potato saltshaker soapbottle spatula spoon tomato winebottle"
        ),
    ),
    "bedroom": Room(
        receptacles={
            "armchair": (0, 1),
            "bed": (1, 1),
            "desk": (1, 2),
            "drawer": (1, 4),
            "dresser": (0, 1),
            "garbagecan": (1, 1),
            "laundryhamper": (0, 1),
            "safe": (0, 1),
            "shelf": (1, 4),
            "sidetable": (1, 2),
        },
        objects=_words(
            "alarmclock baseballbat basketball book bowl box cd cellphone cloth creditcard keychain laptop mug pen "
            "pencil pillow statue tennisracket tissuebox vase watch"
        ),
        lamp="desklamp",
    ),
    "livingroom": Room(
        receptacles={
            "armchair": (1, 2),
            "cabinet": (0, 2),
            "coffeetable": (1, 1),
            "diningtable": (0, 1),
            "drawer": (1, 3),
            "dresser": (0, 1),
            "garbagecan": (1, 1),
            "ottoman": (0, 1),
            "safe": (0, 1),
            "shelf": (0, 3),
            "sidetable": (1, 2),
            "sofa": (1, 1),
            "tvstand": (0, 1),
        },
        objects=_words(
            "book bowl box candle cellphone creditcard keychain laptop newspaper pillow plate remotecontrol statue "
            "tissuebox vase watch wateringcan"
        ),
        lamp="floorlamp",
    ),
    "bathroom": Room(
        receptacles={
            "bathtubbasin": (0, 1),
            "cabinet": (1, 4),
            "countertop": (1, 2),
            "drawer": (0, 3),
            "garbagecan": (1, 1),
            "handtowelholder": (1, 2),
            "shelf": (0, 2),
            "sinkbasin": (1, 2),
            "toilet": (1, 1),
            "toiletpaperhanger": (1, 1),
            "towelholder": (1, 1),
        },
        objects=_words(
            "candle cloth dishsponge handtowel papertowel plunger soapbar soapbottle spraybottle tissuebox "
            "toiletpaper toiletpaperroll towel"
        ),
    ),
}
