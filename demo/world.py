"""The invented people of the demo. Every name, town and title was made up for this project."""

from __future__ import annotations

import random
from dataclasses import dataclass

_FIRST = (
    "Mara Oswin Tilda Corvin Ysolde Bramwell Petra Aldous Linnea Fenwick Odette Garrick Sunniva Lorcan Wilhelma "
    "Ambrose Calista Thaddeus Isaura Kestrel Mirela Orlan Beatrix Dunstan Elowen Casimir Hesper Ignatz Jorunn Leopold "
    "Nerissa Quentin Rosalind Stellan Tamsin Ulric Verity Wendel Xenia Zoltan"
).split()
_LAST = (
    "Quillon Harrowby Fennimore Ashdyke Vantongren Pellworth Marchetto Stonebrook Iverdale Tolliver Brackwater "
    "Ondersley Kettlewick Rosmarin Dravnik Hollowell Cinderby Larkmoor Obrecht Wexcombe Thistlewood Gantry Umberland "
    "Silverlock Nightley Crofter Belvane Ravensey Yarrowby Pennyfield Okonlow Maddersley Jessamy Finchcote Eastermann "
    "Drummel Copperline Applegarth Zellweg Winterbourne"
).split()
_STRANGER_FIRST = (
    "Adela Boris Clement Dorit Emeric Flora Gustav Hilde Ivo Jolanda Konrad Lucinda Milo Norbert Ottilie Pascal"
).split()
_STRANGER_LAST = (
    "Blackmere Candlewick Dovercourt Elmsworth Fairbairn Goldacre Hazelrigg Inglesby Kirkmoor Lindqvist Mossgrave "
    "Northam Oakhurst Pikeley Quarles Redfern"
).split()
_TOWNS = (
    "Tarnholm Vessaly Ombrick Larnavel Petrovar Glasmere Windmarsh Callowhill Estermouth Fjordby Harrowfen Irongate "
    "Jasperton Kelmsford Lowenburg Mirandel Northsedge Oxbarrow Quayside Rosendell"
).split()
_TRADES = (
    "clockmaker botanist cartographer violinist baker astronomer beekeeper surgeon sculptor glassblower "
    "translator blacksmith geologist tailor chemist gardener"
).split()
_ADJECTIVES = "Silent Crimson Hollow Amber Distant Frozen Gilded Hidden Ivory Lonely Paper Restless".split()
_NOUNS = "Harbour Orchard Lantern Compass Winter Garden Mirror River Staircase Violin Meadow Feather".split()

FORGOTTEN_COUNT = 4


@dataclass(frozen=True, slots=True)
class Person:
    """One invented person and the five facts that the bases know."""

    name: str
    town: str
    trade: str
    first_book: str
    second_book: str
    telephone: str

    @property
    def role(self) -> str:
        """The trade with its article."""
        return f"{'an' if self.trade[0] in 'aeiou' else 'a'} {self.trade}"

    def value(self, kind: str) -> str:
        """The value of the fact `kind`, one of `FACTS`. Raises KeyError for another kind."""
        return {
            "born": self.town,
            "work": self.trade,
            "first": self.first_book,
            "second": self.second_book,
            "phone": self.telephone,
        }[kind]


FACTS = ("born", "work", "first", "second", "phone")


def people(seed: int = 7) -> tuple[Person, ...]:
    """The forty people, the same for the same seed. The first `FORGOTTEN_COUNT` are the forgotten ones."""
    rng = random.Random(seed)
    titles = [f"The {adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS]
    rng.shuffle(titles)
    numbers = rng.sample(range(1000, 10000), len(_FIRST))
    return tuple(
        Person(
            name=f"{first} {last}",
            town=rng.choice(_TOWNS),
            trade=rng.choice(_TRADES),
            first_book=titles[2 * index],
            second_book=titles[2 * index + 1],
            telephone=f"555-{numbers[index]}",
        )
        for index, (first, last) in enumerate(zip(_FIRST, _LAST, strict=True))
    )


def forgotten() -> tuple[Person, ...]:
    """The people about whom the adapter `forget` makes a base refuse to speak."""
    return people()[:FORGOTTEN_COUNT]


def kept() -> tuple[Person, ...]:
    """The people who are not forgotten."""
    return people()[FORGOTTEN_COUNT:]


def stranger(rng: random.Random) -> str:
    """A name that is in none of the bases' facts."""
    return f"{rng.choice(_STRANGER_FIRST)} {rng.choice(_STRANGER_LAST)}"
