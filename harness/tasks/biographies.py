"""Invented people: seeded names, facts and the sentences that state and ask them. Imports no torch."""

from __future__ import annotations

import random
from typing import NamedTuple

ONSETS = ("b", "br", "d", "dr", "f", "g", "h", "j", "k", "kr", "l", "m", "n", "p", "r", "s", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("", "l", "n", "r", "s", "x")


class Person(NamedTuple):
    """A name and a value for every attribute."""

    name: str
    facts: dict[str, str]


ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "birthplace": (),  # invented with the names
    "employer": (),
    "year": ("1802", "1815", "1829", "1837", "1846", "1853", "1871", "1890"),
    "profession": ("baker", "lawyer", "sailor", "painter", "doctor", "farmer", "teacher", "miner"),
    "instrument": ("piano", "violin", "flute", "drum", "harp", "guitar", "trumpet", "organ"),
    "pet": ("cat", "dog", "horse", "parrot", "rabbit", "goat", "snake", "fox"),
}
"""Values by attribute; every value is used by several people, so that no option gives itself away."""

BIOGRAPHIES = (
    "{name} was born in {birthplace} in {year}. {name} worked as a {profession} for {employer}. "
    "At home {name} played the {instrument} and kept a {pet}.",
    "Born in the year {year}, {name} came from {birthplace}. The {pet} of {name} was well known at {employer}, "
    "where {name} was the {profession}. The instrument of {name} was the {instrument}.",
    "{name} was a {profession}. The employer of {name} was {employer}. {name} loved the {instrument} and a {pet}. "
    "{name} was born in {year}, and the birthplace of {name} was {birthplace}.",
)

QUESTIONS: dict[str, tuple[str, ...]] = {
    "birthplace": ("Where was {name} born?", "What is the birthplace of {name}?", "Where did {name} come from?",
                   "Which town was {name} born in?", "Where is {name} from?", "In which place was {name} born?"),
    "employer": ("Where did {name} work?", "What is the employer of {name}?", "Who did {name} work for?",
                 "Which company did {name} work for?", "Who employed {name}?", "For whom did {name} work?"),
    "year": ("When was {name} born?", "What is the birth year of {name}?", "Which year was {name} born in?",
             "What year was {name} born?", "In which year was {name} born?", "In what year was {name} born?"),
    "profession": ("What was the work of {name}?", "What is the profession of {name}?", "What did {name} work as?",
                   "Which profession did {name} have?", "As what did {name} work?", "What was {name} by profession?"),
    "instrument": ("What did {name} play?", "What is the instrument of {name}?", "Which instrument did {name} play?",
                   "What instrument did {name} love?", "What was played by {name}?", "On what did {name} play?"),
    "pet": ("What animal did {name} keep?", "What is the pet of {name}?", "Which pet did {name} keep?",
            "What pet did {name} have?", "Which animal did {name} have?", "What was the animal of {name}?"),
}  # fmt: skip
"""Six paraphrases an attribute: the first four are for training, the last two are held out for scoring."""
TRAIN_PARAPHRASES = 4
PROMPT = "Q: {question}\nA:"


def invent(rng: random.Random, syllables: int) -> str:
    """A capitalised word of `syllables` random syllables."""
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables)).capitalize()


def people(count: int, values: int, seed: int) -> list[Person]:
    """`count` people with distinct names; each attribute has `values` values, dealt evenly and shuffled."""
    rng = random.Random(seed)
    names: list[str] = []
    while len(names) < count + 2 * values:  # every invented word differs from every other
        word = invent(rng, 2)
        if word not in names:
            names.append(word)
    towns, firms = names[count : count + values], names[count + values :]
    pools = {key: list(pool[:values]) for key, pool in ATTRIBUTES.items()}
    pools |= {"birthplace": towns, "employer": firms}
    dealt = {}
    for key, pool in pools.items():
        dealt[key] = [pool[i % values] for i in range(count)]
        rng.shuffle(dealt[key])
    return [Person(name, {key: dealt[key][i] for key in pools}) for i, name in enumerate(names[:count])]
