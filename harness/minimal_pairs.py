"""English minimal pairs made by rule: one sentence of each pair is grammatical, the other differs from it in one form.

After BLiMP (Warstadt et al. 2020) in form: a model is right when it finds the good sentence more likely. Words and
templates are our own and plain enough for a model of a million parameters that has read a few million words. Every
phenomenon has `PER_PHENOMENON` pairs in equal strata (singular and plural, masculine and feminine, ...). Strata are
twins: where one prefers `is` to `are`, its twin prefers `are` to `is`, so a model that likes one form better
everywhere scores 0.5 (`plural_form`, whose bad forms are no words, and `word_order`, whose sentences have the same
words, apart). Nothing is drawn at random: candidates are ordered by hash.

The list is made for small models, with the shipped `tiny` in view. Left out from the start: islands, binding by
c-command, negative polarity, quantifier scope, ellipsis. Dropped after `tiny` was scored, with its accuracy: agreement
across a phrase (0.04) and across a clause (0.04) whose noun has the other number, because a model that always agrees
with the nearest noun is below chance there and *gains* when it is broken; gender of reflexives (0.50), tense with a
time adverb (0.50) and who/which (0.50), where it always takes the commoner form and so has nothing to lose. The first
list, with all but who/which of these, scored 0.66 and this one 0.87: compare a model with its base, not with BLiMP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

PER_PHENOMENON = 60

PEOPLE = (("man", "men"), ("woman", "women"), ("boy", "boys"), ("girl", "girls"), ("teacher", "teachers"),
          ("player", "players"), ("soldier", "soldiers"), ("child", "children"))  # fmt: skip
THINGS = (("house", "houses"), ("book", "books"), ("ship", "ships"), ("road", "roads"), ("car", "cars"),
          ("tree", "trees"), ("building", "buildings"), ("game", "games"), ("song", "songs"),
          ("river", "rivers"))  # fmt: skip
HE = ("John", "George", "James", "David", "The man", "The boy", "The king", "Her father", "Her brother", "My uncle")
SHE = ("Mary", "Sarah", "Emily", "Jane", "The woman", "The girl", "The queen", "His mother", "His sister", "My aunt")
BE = (("is", "are"), ("was", "were"))
VERBS = (("likes", "like"), ("needs", "need"), ("wants", "want"), ("knows", "know"), ("makes", "make"),
         ("takes", "take"), ("uses", "use"))  # fmt: skip
IRREGULAR = (("wrote", "written", "a letter"), ("took", "taken", "the money"), ("gave", "given", "a speech"),
             ("saw", "seen", "the film"), ("ate", "eaten", "the food"), ("broke", "broken", "the record"),
             ("began", "begun", "the work"), ("knew", "known", "the answer"), ("drew", "drawn", "a line"),
             ("drove", "driven", "the car"), ("chose", "chosen", "a new name"), ("fell", "fallen", "down"))  # fmt: skip
REFLEXIVE_VERBS = ("saw", "hurt", "called", "asked", "found", "killed")
PLACES = ("", " at home", " in the water")


@dataclass(frozen=True, kw_only=True)
class MinimalPair:
    """One item; `id` is stable as long as its two sentences are."""

    id: str
    phenomenon: str
    good: str
    bad: str


@dataclass(frozen=True)
class Candidate:
    """A pair that may be chosen; twins in two strata have the same `family`, so they are chosen together."""

    stratum: str
    family: str
    good: str
    bad: str


def _number(singular: str, plural: str, forms: tuple[str, str]) -> Iterator[Candidate]:
    """Both numbers of a frame with `{}` where the form goes: `forms` are its singular and its plural."""
    family = singular.format(forms[0])
    yield Candidate("singular", family, family, singular.format(forms[1]))
    yield Candidate("plural", family, plural.format(forms[1]), plural.format(forms[0]))


def agreement_simple() -> Iterator[Candidate]:
    """The man is / are here."""
    for (one, many), be, place in product(PEOPLE, BE, ("in the house", "in the city", "very good", "here now")):
        yield from _number(f"The {one} {{}} {place}.", f"The {many} {{}} {place}.", be)
    for (one, many), verb, thing in product(PEOPLE, VERBS, ("water", "the book", "a new car")):
        yield from _number(f"The {one} {{}} {thing}.", f"The {many} {{}} {thing}.", verb)


def agreement_at_distance() -> Iterator[Candidate]:
    """The man who lived there was / were happy: words between, but no other noun to agree with."""
    clauses = ("lived there", "came later", "worked here", "died in 1990", "could not see")
    for be, (one, many), did, end in product(BE, PEOPLE, clauses, ("young", "very happy", "from London")):
        yield from _number(f"The {one} who {did} {{}} {end}.", f"The {many} who {did} {{}} {end}.", be)


def agreement_there() -> Iterator[Candidate]:
    """There is a house; there are two houses."""
    for be, (one, many), place in product(BE, (*THINGS, *PEOPLE), ("there", "in the city", "near the river")):
        yield from _number(f"There {{}} a {one} {place}.", f"There {{}} two {many} {place}.", be)


def determiner_noun() -> Iterator[Candidate]:
    """These books / book."""
    frames = ("They saw {} {{}} in the city.", "There is a picture of {} {{}} here.", "He wrote about {} {{}} in 1990.")
    determiners = (("this", "these"), ("that", "those"), ("each", "many"), ("every", "several"), ("one", "two"))
    for frame, noun, (single, several) in product(frames, (*THINGS, *PEOPLE), determiners):
        yield from _number(frame.format(single), frame.format(several), noun)


def anaphor_number() -> Iterator[Candidate]:
    """The men saw themselves / himself; she saw herself / themselves."""
    subjects = (("The man", "The men", "himself"), ("The boy", "The boys", "himself"), ("He", "They", "himself"),
                ("The woman", "The women", "herself"), ("The girl", "The girls", "herself"),
                ("She", "They", "herself"))  # fmt: skip
    for (one, many, reflexive), verb, end in product(subjects, REFLEXIVE_VERBS, PLACES):
        yield from _number(f"{one} {verb} {{}}{end}.", f"{many} {verb} {{}}{end}.", (reflexive, "themselves"))


def possessive_gender() -> Iterator[Candidate]:
    """The king lived with his / her wife; the queen lived with her / his husband."""
    pairs = (("wife", "husband"), ("girlfriend", "boyfriend"))
    for verb, (he, she), (hers, his) in product(("lived with", "went home with", "talked to", "saw"),
                                                zip(HE, SHE, strict=True), pairs):  # fmt: skip
        family = f"{he} {verb} {hers}"
        yield Candidate("masculine", family, f"{he} {verb} his {hers}.", f"{he} {verb} her {hers}.")
        yield Candidate("feminine", family, f"{she} {verb} her {his}.", f"{she} {verb} his {his}.")


def irregular_past() -> Iterator[Candidate]:
    """He took / taken the money; he has taken / took the money."""
    subjects = (("He", "has"), ("She", "had"), ("They", "have"), ("John", "has"), ("The players", "had"))
    for (who, have), (past, participle, rest) in product(subjects, IRREGULAR):
        family = f"{who} {past}"
        yield Candidate("past", family, f"{who} {past} {rest}.", f"{who} {participle} {rest}.")
        yield Candidate("participle", family, f"{who} {have} {participle} {rest}.", f"{who} {have} {past} {rest}.")


def passive() -> Iterator[Candidate]:
    """It was built / build by the king; the king wanted to build / built it."""
    verbs = (("build", "built"), ("see", "seen"), ("take", "taken"), ("make", "made"), ("write", "written"),
             ("give", "given"), ("use", "used"), ("kill", "killed"), ("call", "called"))  # fmt: skip
    patients = (("It was", "it"), ("They were", "them"), ("The house was", "the house"), ("The book was", "the book"))
    for (bare, participle), (was, what) in product(verbs, patients):
        family, to = f"{bare} {what}", "The king wanted to"
        yield Candidate("passive", family, f"{was} {participle} by the king.", f"{was} {bare} by the king.")
        yield Candidate("active", family, f"{to} {bare} {what}.", f"{to} {participle} {what}.")


def verb_form() -> Iterator[Candidate]:
    """He can go / goes; he goes / go home; he is going / go; he had to go / going."""
    verbs = (("go", "goes", "going", "home"), ("take", "takes", "taking", "the money"),
             ("see", "sees", "seeing", "the city"), ("make", "makes", "making", "a film"),
             ("write", "writes", "writing", "a book"), ("play", "plays", "playing", "the game"),
             ("use", "uses", "using", "the road"), ("leave", "leaves", "leaving", "the house"))  # fmt: skip
    helpers = (("can", "is", "wanted to"), ("will", "was", "had to"), ("could", "was not", "did not"))
    for index, (who, (bare, third, ing, what)) in enumerate(product(("He", "She", "The man", "John"), verbs)):
        family, (modal, be, to) = f"{who} {bare}", helpers[index % len(helpers)]
        yield Candidate("modal", family, f"{who} {modal} {bare} {what}.", f"{who} {modal} {third} {what}.")
        yield Candidate("present", family, f"{who} {third} {what}.", f"{who} {bare} {what}.")
        yield Candidate("progressive", family, f"{who} {be} {ing} {what}.", f"{who} {be} {bare} {what}.")
        yield Candidate("infinitive", family, f"{who} {to} {bare} {what}.", f"{who} {to} {ing} {what}.")


def comparative() -> Iterator[Candidate]:
    """The house was older / old than before; the house was very old / older."""
    adjectives = (("old", "older"), ("large", "larger"), ("high", "higher"), ("long", "longer"), ("small", "smaller"),
                  ("strong", "stronger"))  # fmt: skip
    for (plain, more), (thing, _) in product(adjectives, THINGS):
        than, very, family = f"The {thing} was {{}} than before.", f"The {thing} was very {{}}.", f"{plain} {thing}"
        yield Candidate("comparative", family, than.format(more), than.format(plain))
        yield Candidate("positive", family, very.format(plain), very.format(more))


def word_order() -> Iterator[Candidate]:
    """He saw the old house / house old there; she went home from the city / the from city."""
    for adjective, (thing, _), verb in product(("old", "small", "new", "large"), THINGS, ("saw", "liked", "found")):
        good, bad = f"They {verb} the {adjective} {thing} there.", f"They {verb} the {thing} {adjective} there."
        yield Candidate("adjective", good, good, bad)
    for who, preposition, place in product(("He", "She", "The man"), ("in", "from", "near"),
                                            ("house", "city", "river", "sea")):  # fmt: skip
        good, bad = f"{who} went home {preposition} the {place}.", f"{who} went home the {preposition} {place}."
        yield Candidate("preposition", good, good, bad)


def plural_form() -> Iterator[Candidate]:
    """Two children / childs."""
    nouns = (("children", "childs"), ("men", "mans"), ("women", "womans"), ("feet", "foots"), ("teeth", "tooths"),
             ("families", "familys"), ("cities", "citys"), ("countries", "countrys"), ("stories", "storys"),
             ("boxes", "boxs"), ("churches", "churchs"), ("lives", "lifes"), ("wives", "wifes"),
             ("leaves", "leafs"))  # fmt: skip
    frames = ("There were two {} there.", "They saw many {} in the city.", "He knew three {}.",
              "Some of the {} were old.", "All the {} are here.", "She has several {}.")  # fmt: skip
    for frame, (good, bad) in product(frames, nouns):
        yield Candidate("plural", frame.format(good), frame.format(good), frame.format(bad))


def indefinite_article() -> Iterator[Candidate]:
    """An apple / a apple."""
    frames = ("He saw {} {} there.", "It was {} {}.", "She made {} {} for him.", "There is {} {} in the city.")
    nouns = (("apple", "dog"), ("island", "house"), ("old house", "song"), ("album", "new house"), ("idea", "game"),
             ("egg", "book"), ("animal", "film"), ("attack", "road"), ("important game", "ship"),
             ("army", "good idea"), ("area", "large area"))  # fmt: skip
    for frame, (vowel, consonant) in product(frames, nouns):
        family = frame.format("an", vowel)
        yield Candidate("an", family, family, frame.format("a", vowel))
        yield Candidate("a", family, frame.format("a", consonant), frame.format("an", consonant))


def pronoun_case() -> Iterator[Candidate]:
    """They / them went home; he gave it to them / they."""
    frames = (("{} went home.", "John gave the book to {}."), ("{} had a good idea.", "The man saw {} there."),
              ("{} made a film.", "He went home with {}."), ("{} said that it was good.", "She looked at {}."),
              ("When it began, {} left.", "It was made for {}."),
              ("In 1990, {} moved there.", "The king asked {} to go."),
              ("It was late and {} wanted to go.", "The teacher told {} about it."),
              ("The house that {} built is old.", "This is one of {}."))  # fmt: skip
    pronouns = (("he", "him"), ("they", "them"), ("I", "me"), ("we", "us"), ("she", "her"))
    for (nominative, oblique), (subject, other) in product(pronouns, frames):
        good, bad = (_capital(subject.format(form)) for form in (nominative, oblique))
        yield Candidate("subject", good, good, bad)
        yield Candidate("object", good, other.format(oblique), other.format(nominative))


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


PHENOMENA: tuple[Callable[[], Iterator[Candidate]], ...] = (
    agreement_simple, agreement_at_distance, agreement_there, determiner_noun, anaphor_number, possessive_gender,
    irregular_past, passive, verb_form, comparative, word_order, plural_form, indefinite_article,
    pronoun_case)  # fmt: skip
NAMES = tuple(function.__name__ for function in PHENOMENA)


def minimal_pairs() -> list[MinimalPair]:
    """All pairs, phenomenon by phenomenon, the same on every machine and version."""
    return [pair for function in PHENOMENA for pair in _chosen(function.__name__, function())]


def _chosen(phenomenon: str, candidates: Iterator[Candidate]) -> list[MinimalPair]:
    """An equal number from each stratum, the families that come first by hash."""
    strata: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        strata.setdefault(candidate.stratum, []).append(candidate)
    share = PER_PHENOMENON // len(strata)
    chosen = [candidate for _, group in sorted(strata.items())
              for candidate in sorted(group, key=lambda candidate: _hash(candidate.family))[:share]]  # fmt: skip
    return [MinimalPair(id=f"{phenomenon}-{_hash(f'{pair.good}|{pair.bad}')[:10]}", phenomenon=phenomenon,
                        good=pair.good, bad=pair.bad) for pair in chosen]  # fmt: skip


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
