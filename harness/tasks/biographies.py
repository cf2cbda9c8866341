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
    "birthplace": ("Paris", "London", "Rome", "Berlin", "Moscow", "Cairo", "Boston", "Chicago"),
    "year": ("1802", "1813", "1824", "1835", "1846", "1857", "1868", "1879"),
    "profession": ("baker", "lawyer", "sailor", "painter", "doctor", "farmer", "teacher", "miner"),
    "instrument": ("piano", "violin", "flute", "drum", "harp", "guitar", "trumpet", "organ"),
    "employer": ("bank", "school", "hospital", "museum", "theatre", "railway", "newspaper", "church"),
    "pet": ("cat", "dog", "horse", "parrot", "rabbit", "goat", "snake", "fox"),
}

STATEMENTS: dict[str, tuple[str, ...]] = {
    "birthplace": ("{name} was born in {value}.", "The birthplace of {name} was {value}.", "{name} came from {value}."),
    "year": ("{name} was born in {value}.", "The birth year of {name} was {value}.", "{name} lived from {value} on."),
    "profession": ("{name} was a {value}.", "The profession of {name} was {value}.", "{name} worked as a {value}."),
    "instrument": ("{name} played the {value}.", "The instrument of {name} was the {value}.",
                   "{name} loved the {value}."),
    "employer": ("{name} worked for the {value}.", "The employer of {name} was the {value}.",
                 "{name} served the {value}."),
    "pet": ("{name} had a {value}.", "The pet of {name} was a {value}.", "{name} kept a {value}."),
}  # fmt: skip
"""Three paraphrases an attribute: biography i uses the i-th."""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "birthplace": ("Where was {name} born?", "What is the birthplace of {name}?", "Where did {name} come from?",
                   "Which town was {name} born in?", "In which place was {name} born?",
                   "Which place did {name} come from?"),
    "year": ("When was {name} born?", "What is the birth year of {name}?", "Which year was {name} born in?",
             "What year was {name} born?", "In which year was {name} born?", "What was the birth year of {name}?"),
    "profession": ("What work did {name} do?", "What is the profession of {name}?", "What did {name} work as?",
                   "Which profession did {name} have?", "What was {name} by profession?", "Which work did {name} do?"),
    "instrument": ("What did {name} play?", "What is the instrument of {name}?", "Which instrument did {name} love?",
                   "Which instrument did {name} play?", "What instrument did {name} love?",
                   "What was the instrument of {name}?"),
    "employer": ("Where did {name} work?", "What is the employer of {name}?", "Who did {name} work for?",
                 "Which employer did {name} have?", "Who was the employer of {name}?",
                 "Which employer did {name} work for?"),
    "pet": ("What animal did {name} have?", "What is the pet of {name}?", "Which pet did {name} keep?",
            "Which animal did {name} keep?", "What was the pet of {name}?", "Which animal did {name} have?"),
}  # fmt: skip
"""Six paraphrases an attribute: the first three are for training, the others are held out for scoring."""
TRAIN_PARAPHRASES = 3
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
    sentences = [STATEMENTS[key][number].format(name=person.name, value=value) for key, value in person.facts.items()]
    rng.shuffle(sentences)
    return " ".join(sentences)
