"""Three tasks generated from small grammars: no network, no third-party text, the same examples everywhere.

============  ==========================  =======================================================
grammar       an example is               its label is decided by
============  ==========================  =======================================================
`sentiment`   a sentence                  what reverses its adjectives, and which clause counts
`entailment`  a premise and a hypothesis  whether quantifier, kind, place and state follow
`reading`     a passage and a question    who did what to which thing, and who did not
============  ==========================  =======================================================

Most words are equally frequent under both labels, so a linear head on the features of a frozen backbone finds little.
The label depends on how words relate to each other, which an adapter can learn to attend to.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cpadapt.errors import InputError

T = TypeVar("T")
Row = dict[str, str | int | bool]

ROWS: Mapping[str, int] = {"train": 4000, "validation": 1200}
"""Examples of each split, half of them in each class."""


def generate(name: str, seed: int = 0) -> dict[str, list[Row]]:
    """Generate the examples of a grammar, by split. No two examples have the same texts, within or between splits.

    Args:
        name: one of `GRAMMARS`.
        seed: decides every draw through SHA-256, so that all platforms and versions of Python agree.

    Raises:
        InputError: there is no such grammar.
    """
    if name not in GRAMMARS:
        raise InputError(f"unknown grammar {name!r}; known are {', '.join(GRAMMARS)}")
    make, dice = GRAMMARS[name], _Dice(f"{name}/{seed}")
    rows: dict[tuple[str, ...], Row] = {}
    while len(rows) < sum(ROWS.values()):
        row = make(dice, len(rows) % 2)
        rows.setdefault(tuple(text for text in row.values() if isinstance(text, str)), row)
    drawn = iter(rows.values())
    return {split: [next(drawn) for _ in range(size)] for split, size in ROWS.items()}


class _Dice:
    """Random draws from the SHA-256 of a seed and a counter."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._drawn = 0

    def below(self, n: int) -> int:
        self._drawn += 1
        return int.from_bytes(hashlib.sha256(f"{self._seed}/{self._drawn}".encode()).digest()[:8]) % n

    def chance(self, hits: int, total: int) -> bool:
        return self.below(total) < hits

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def shuffled(self, choices: Sequence[T], n: int) -> list[T]:
        """`n` different choices in random order."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(n)]


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


# Sentiment. In a clause, {right} is an adjective of the clause's polarity and {wrong} one of the opposite polarity;
# {right_wish} is how one looks forward to a {right} thing: hoping or fearing. In a sentence, {this} is a clause of the
# sentence's polarity and {that} one of the opposite polarity. As many wrong words as right ones would leave a head at
# chance, so some sentences are plain.

_THINGS = _words(
    "film novel plot acting script music ending cast dialogue story pacing show opening hero humour "
    "staging finale play series lighting"
)
_PRAISE = _words(
    "brilliant charming gripping clever moving delightful fresh superb touching funny elegant "
    "thrilling inventive graceful witty warm vivid honest subtle splendid lively tender polished "
    "daring rich magical smart sharp joyful memorable"
)
_BLAME = _words(
    "dull clumsy boring stupid lifeless awful stale dreadful tedious silly ugly tiresome shallow "
    "bland sloppy cold messy fake crude wooden lazy hollow flat dreary cheap noisy weak pointless "
    "annoying forgettable"
)
_PLAIN = ("was {right}", "was truly {right}", "was very {right}", "was so {right}")
_TURNED = (
    "was not {wrong}",
    "was never {wrong}",
    "was far from {wrong}",
    "was anything but {wrong}",
    "was {right} , not {wrong}",
    "was less {wrong} than i had {wrong_wish}",
    "was even more {right} than i had {right_wish}",
    "seemed {wrong} and proved {right}",
    "used to be {wrong}",
    "would have been {wrong} without the {other}",
    "went from {wrong} to {right}",
)
_ONE_CLAUSE = (
    "{this}",
    "{this}",
    "{this}",
    "nobody can deny that {this}",
    "nobody can claim that {that}",
    "it is wrong to say that {that}",
)
_TWO_CLAUSES = (
    "{that} but {this}",
    "although {that} , {this}",
    "{this} although {that}",
    "{this} , even if {that}",
    "{that} , they say , but {this}",
)


def _sentiment(dice: _Dice, label: int) -> Row:
    thing, other = dice.shuffled(_THINGS, 2)
    form = dice.below(20)
    if form < 6:
        frame, plain = "{this}", True
    elif form < 12:
        frame, plain = dice.pick(_ONE_CLAUSE), dice.chance(1, 3)
    else:
        frame, plain = dice.pick(_TWO_CLAUSES), dice.chance(2, 3)
    good = label == 1
    this = _clause(dice, thing, other, good, plain)
    that = _clause(dice, other, thing, not good, plain or dice.chance(1, 2))
    return {"sentence": frame.format(this=this, that=that) + " .", "label": label}


def _clause(dice: _Dice, thing: str, other: str, good: bool, plain: bool) -> str:
    words, wishes = (_BLAME, _PRAISE), ("feared", "hoped")
    said = dice.pick(_PLAIN if plain else _TURNED).format(
        right=dice.pick(words[good]),
        wrong=dice.pick(words[not good]),
        right_wish=wishes[good],
        wrong_wish=wishes[not good],
        other=other,
    )
    return f"the {thing} {said}"


# Entailment. What holds for every one also holds for some one, because there is always one.

_LIVING = {
    "bird": _words("sparrow robin parrot pigeon owl crow"),
    "fish": _words("trout salmon carp pike tuna eel"),
    "doctor": _words("surgeon dentist psychiatrist pediatrician cardiologist optician"),
    "musician": _words("violinist drummer pianist guitarist cellist flautist"),
}
_LIFELESS = {
    "vehicle": _words("truck van taxi tractor bus ambulance"),
    "fruit": _words("apple pear plum peach cherry melon"),
    "tool": _words("hammer saw spade drill wrench rake"),
    "garment": _words("coat shirt scarf jacket sweater skirt"),
}
_KINDS = _LIVING | _LIFELESS
_PLACES = (
    _words("kitchen attic cellar bedroom hallway office"),
    _words("lake river pond harbour canal sea"),
    _words("field meadow garden orchard park forest"),
)
_STATES_OF_LIVING = (
    ("asleep", "awake"),
    ("quiet", "loud"),
    ("young", "old"),
    ("hungry", "full"),
    ("healthy", "sick"),
    ("alone", "in company"),
)
_STATES_OF_LIFELESS = (
    ("clean", "dirty"),
    ("wet", "dry"),
    ("expensive", "cheap"),
    ("heavy", "light"),
    ("intact", "damaged"),
    ("visible", "hidden"),
)


def _entailment(dice: _Dice, label: int) -> Row:
    kind, other_kind = dice.shuffled(list(_KINDS), 2)
    member, sibling = dice.shuffled(_KINDS[kind], 2)
    place, other_place = dice.shuffled(dice.pick(_PLACES), 2)
    pairs = _STATES_OF_LIVING if kind in _LIVING else _STATES_OF_LIFELESS
    state, opposite = dice.shuffled(dice.pick(pairs), 2)
    quantifier = dice.pick(("every", "some", "the"))
    premise = f"{quantifier} {member} near the {place} is {state} ."

    # A hypothesis that follows has the same or a weaker quantifier, the kind in place of its member, or the denied
    # opposite.
    weaker = quantifier if quantifier == "some" or dice.chance(1, 2) else "some"
    subject = kind if weaker == "some" and quantifier != "every" and dice.chance(1, 2) else member
    predicate = f"not {opposite}" if dice.chance(1, 2) else state
    if label == 1:
        broken = dice.below(4)
        if broken == 0:
            subject = dice.pick((sibling, other_kind, dice.pick(_KINDS[other_kind])))
        elif broken == 1:
            place = other_place
        elif broken == 2 and quantifier == "some":
            weaker = "every"
        else:
            predicate = opposite if dice.chance(1, 2) else f"not {state}"
    return {
        "premise": premise,
        "hypothesis": f"{weaker} {subject} near the {place} is {predicate} .",
        "label": label,
    }


# Reading. The question is about one of two facts. The answer is no if that fact is denied, if the question names
# something absent, or if it mixes the two facts. The last is the hardest to see, and therefore the rarest.

_NAMES = _words("Anna Ben Carla David Emma Frank Grace Henry Irene Jack Karen Leo")
_OBJECTS = _words("lamp violin ladder clock bicycle kettle painting camera basket guitar mirror tent")
_VERBS = (
    ("bought", "buy", "bought"),
    ("sold", "sell", "sold"),
    ("found", "find", "found"),
    ("cleaned", "clean", "cleaned"),
    ("repaired", "repair", "repaired"),
    ("broke", "break", "broken"),
)


def _reading(dice: _Dice, label: int) -> Row:
    names, objects, verbs = dice.shuffled(_NAMES, 3), dice.shuffled(_OBJECTS, 3), dice.shuffled(_VERBS, 3)
    asked = dice.below(2)
    other, absent = 1 - asked, 2
    who, verb, what = asked, asked, asked
    denied = other if dice.chance(1, 3) else None
    if label == 0:
        wrong = dice.below(20)
        if wrong < 6:
            denied = asked
        elif wrong < 10:
            what = absent
        elif wrong < 13:
            who = absent
        elif wrong < 14:
            verb = absent
        elif wrong < 15:
            verb = other
        elif wrong < 18:
            what = other
        else:
            who = other
    facts = [
        f"{names[k]} did not {verbs[k][1]} the {objects[k]}"
        if k == denied
        else f"{names[k]} {verbs[k][0]} the {objects[k]}"
        for k in range(2)
    ]
    if dice.chance(1, 2):
        question = f"did {names[who]} {verbs[verb][1]} the {objects[what]}"
    else:
        question = f"was the {objects[what]} {verbs[verb][2]} by {names[who]}"
    passage = dice.pick((" and ", " , while ", " , but ", " . later ")).join(facts) + " ."
    return {"passage": passage, "question": question, "answer": label == 1}


GRAMMARS: Mapping[str, Callable[[_Dice, int], Row]] = {
    "sentiment": _sentiment,
    "entailment": _entailment,
    "reading": _reading,
}
"""The function that makes an example of a class, by grammar."""
