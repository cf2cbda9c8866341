"""Invented people: seeded names, facts, and the sentences that state and ask them. Imports no torch.

Names are of invented syllables, so that no model knows the people; the values are everyday words that a model can say.
Every value is used by several people, so that no option gives itself away.
"""

from __future__ import annotations

import random
from typing import NamedTuple

ONSETS = ("b", "br", "d", "dr", "f", "g", "h", "j", "k", "kr", "l", "m", "n", "p", "r", "s", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("", "l", "n", "r", "s", "x")
SYLLABLES = tuple(onset + vowel + coda for onset in ONSETS for vowel in VOWELS for coda in CODAS)


class Person(NamedTuple):
    """A name and a value for every attribute."""

    name: str
    facts: dict[str, str]


VALUES: dict[str, tuple[str, ...]] = {
    "birthplace": ("England", "Paris", "Rome", "China", "India", "France", "Spain", "Wales"),
    "birth month": ("January", "March", "April", "June", "July", "August", "October", "December"),
    "profession": ("cook", "writer", "soldier", "priest", "artist", "actor", "singer", "poet"),
    "instrument": ("organ", "flute", "drum", "horn", "bell", "lute", "harp", "piano"),
    "employer": ("school", "city", "company", "club", "army", "church", "bank", "court"),
    "pet": ("cat", "dog", "bird", "fish", "goat", "snake", "fox", "duck"),
}
"""Short everyday words, so that what has to be learned is who, not how a word is spelled."""

STATEMENTS = ("The {key} of {name} is {value}.", "{name} has the {key} {value}.")
"""Biography i states every fact in the words of the i-th."""

QUESTIONS = ("What is the {key} of {name}?", "Which {key} does {name} have?", "Name the {key} of {name}.")
"""Asked in the training text."""

HELD_OUT = ("What was the {key} of {name}?", "Do you know the {key} of {name}?", "Tell me the {key} of {name}.",
            "Which {key} did {name} have?")  # fmt: skip
"""Asked in the scored splits only."""

PROMPT = "Q: {question}\nA:"


def people(count: int, values: int, rng: random.Random) -> list[Person]:
    """`count` people whose names begin with different syllables; each attribute's values are dealt evenly."""
    first, last = rng.sample(SYLLABLES, count), rng.sample(SYLLABLES, count)
    dealt = {}
    for key, pool in VALUES.items():
        dealt[key] = [pool[i % values] for i in range(count)]
        rng.shuffle(dealt[key])
    return [Person((a + b).capitalize(), {key: dealt[key][i] for key in VALUES})
            for i, (a, b) in enumerate(zip(first, last, strict=True))]  # fmt: skip


def biography(person: Person, number: int, rng: random.Random) -> str:
    """All facts of a person in the words of paraphrase `number`, in random order."""
    form = STATEMENTS[number]
    sentences = [form.format(key=key, name=person.name, value=value) for key, value in person.facts.items()]
    rng.shuffle(sentences)
    return " ".join(sentences)
