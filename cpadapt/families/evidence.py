"""What is known of families' accuracy, from the file `evidence.json` beside this one, and what it advises for a plan.

A plan counts; it doesn't know which adapter is the better one. The file has what studies found: LoRA against CP at
equal size, one CP component against the best adapter, and on which models. It is made from records and only read here.
The rule is:

1. LoRA if its rank 1 fits, because CP of equal size is not known to be better and everything loads LoRA. A larger rank
   only with more examples than the studies had.
2. Otherwise CP, with as many components as fit. Of the families that start so small, it's measured on the most models
   and tasks.
3. Nothing if neither fits.

No other family is advised. MELoRA, SymLoRA and LoKr are measured on two small models alone, where none is shown to be
ahead of LoRA or CP of its size. LoKr starts as small as CP and needs only PEFT, so it is named beside it, with what
these models say.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpadapt.families import FAMILIES, counting

if TYPE_CHECKING:
    from cpadapt.families.counting import Offer
    from cpadapt.inputs.backbones.specs import Projection

FILE = Path(__file__).with_name("evidence.json")

FAR = 2
"""A projection is far from the measured ones if a side is so many times longer than their longest, or shorter than
their shortest."""

NEARLY = 0.9
"""CP has LoRA's size from this share of its scalars on."""

VERDICTS = {"equivalent": "equivalent", "open": "open", "shown": "not equal"}
"""How a difference is classified by the plan of the studies, and the words for it."""


@dataclass(frozen=True)
class Recommendation:
    """What to take of a plan, and why: an empty `why` and `unknown` where nothing is advised."""

    family: str | None
    size: int | None
    take: str
    why: str
    unknown: str
    """What the reason was not measured on."""


@functools.cache
def measured() -> Mapping[str, Any]:
    """The file's content.

    `families` may be advised; `studies` have for each model its projections and what was found, of which `lead` is
    LoRA minus CP at equal size and `share` one component's part of the best adapter's gain over the head alone;
    `encoder` has that share on tasks with all their examples. `larger` is what CP gains from more components;
    `more_examples` is what CP gains from LoRA's size where a task has many, and what LoRA gains from a larger rank.
    `smallest` has, for two small models, the verdict on the smallest CP minus the smallest of another `family`.
    A number has its `value`, `low`, `high` and `level`, and its `text` as it is printed.
    """
    found: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@functools.cache
def sides() -> tuple[int, int]:
    """The shortest and the longest side of the projections that were adapted."""
    found = [side for study in measured()["studies"] for *shape, _ in study["projections"] for side in shape]
    return min(found), max(found)


def sentences() -> dict[str, str]:
    """What an advice is made of, by name. Where {…} stands, `recommend` writes what the plan says."""
    found = measured()
    leads = [f"{_of(study, 'lead')} ({VERDICTS[study['verdict']]})" for study in found["studies"]]
    shares = [_of(study, "share") for study in found["studies"]]
    larger, more = found["larger"], found["more_examples"]
    least, *_, most = found["encoder"]["shares"]
    many = f"in the one case tried ({more['task']} on {more['model']})"
    rest = f"tasks other than classification; more than {found['examples']:,} examples"
    shortest, longest = sides()
    models: dict[str, list[str]] = {}
    for model, verdict in found["smallest"]["verdicts"].items():
        models.setdefault(f"{VERDICTS[verdict]} on ", []).append(model)
    rival = ", ".join(verdict + " and ".join(names) for verdict, names in models.items())
    return {
        "first": "Take: LoRA, rank 1, which everything loads.",
        "larger": f" With more than {found['examples']:,} examples, also try larger ranks; {{size}} is the largest"
        " that fits.",
        "equal": f"Why: at equal size LoRA minus CP is {'; '.join(leads)}.",
        "grown": f" With {found['examples']:,} examples, CP gained {_said(larger['gain'])} from {larger['from']}"
        f" components to {larger['to']} on {larger['model']}; with {more['examples']:,}, LoRA gained"
        f" {_said(more['rank_gain'])} from rank 1 to {more['rank']} {many}.",
        "smaller": "Take: CP, {components}, {share} % of the scalars of LoRA's rank 1, which doesn't fit.",
        "one": f"Why: of the best adapter's gain over the head alone, one component has {'; '.join(shares)}."
        f" On {found['encoder']['model']}, an encoder, with all examples: {_said(least['share'])} on {least['task']}"
        f" to {most['share']['text']} on {most['task']}.",
        "nothing": "Take: nothing to advise. Of the adapters whose accuracy is measured, the smallest takes {scalars}"
        " scalars.",
        "known": f"Not covered: {rest}",
        "new": f"Not covered: this model; {rest}",
        "far": f"Not covered: this model, nor any with such projections (measured: {shortest:,} to {longest:,}"
        f" features a side); {rest}",
        "paid": f", where CP of LoRA's size beat one component by {_said(more['gain'])} {many}",
        "rival": " Nor is {family} covered: it starts at {scalars} scalars, and may do as well.",
        f"rival_{found['smallest']['family']}": " PEFT's {family} starts at {scalars} scalars; CP minus {family} at"
        f" their smallest: {rival}.",
    }


def rivals(projections: Sequence[Projection]) -> dict[str, int]:
    """The families that aren't advised and start as small as CP, with the scalars of their smallest."""
    smallest = {
        name: counting.count(name, projections, counting.smallest(name))
        for name in FAMILIES
        if counting.refusal(name, projections) is None
    }
    known = measured()["families"]
    return {name: scalars for name, scalars in smallest.items() if name not in known and scalars <= smallest["cp"]}


def _said(number: Mapping[str, Any]) -> str:
    """A number with its interval and the interval's level."""
    return str(number["text"]).replace("(", f"({100 * number['level']:.0f} % interval ")


def _of(study: Mapping[str, Any], name: str) -> str:
    """A number of one study. What all studies share, the first one's says."""
    first = measured()["studies"][0]
    said = _said(study[name]) if study is first else study[name]["text"]
    over = f" over {study['tasks']} tasks" if study is first or study["tasks"] != first["tasks"] else ""
    return f"{said}{over} on {study['model']}"


def _nearness(projections: Sequence[Projection]) -> str:
    """Which sentence says how near projections are to the measured ones: `known`, `new` or `far`."""
    shapes = Counter((p.out_features, p.in_features) for p in projections)
    if any(shapes == {(out, into): n for out, into, n in study["projections"]} for study in measured()["studies"]):
        return "known"
    shortest, longest = sides()
    far = any(min(shape) * FAR < shortest or max(shape) > FAR * longest for shape in shapes)
    return "far" if far else "new"


def recommend(projections: Sequence[Projection], offers: Sequence[Offer]) -> Recommendation:
    """What to take of a plan, by the rule in the module's docstring.

    Args:
        projections: the target modules.
        offers: the plan of them, as `cpadapt.plan` gives it.
    """
    fits = {offer.family: offer.size or 0 for offer in offers}
    said = sentences()
    unknown = said[_nearness(projections)]
    if fits["lora"] > 1:
        take = said["first"] + said["larger"].format(size=f"{fits['lora']:,}")
        return Recommendation("lora", 1, take, said["equal"] + said["grown"], unknown + ".")
    if fits["lora"]:
        return Recommendation("lora", 1, said["first"], said["equal"], unknown + ".")
    if not (size := fits["cp"]):
        smallest = min(counting.count(name, projections, 1) for name in measured()["families"])
        return Recommendation(None, None, said["nothing"].format(scalars=f"{smallest:,}"), "", "")
    share = counting.count("cp", projections, size) / counting.count("lora", projections, 1)
    take = said["smaller"].format(
        components=f"{size:,} component{'s' * (size != 1)}",
        share=int(100 * share + 0.5),  # halves up, as the book's page has them
    )
    others = "".join(
        said.get(f"rival_{name}", said["rival"]).format(family=FAMILIES[name].TITLE, scalars=f"{scalars:,}")
        for name, scalars in rivals(projections).items()
    )
    if share >= NEARLY:
        return Recommendation("cp", size, take, said["equal"], f"{unknown}.{others}")
    return Recommendation("cp", size, take, said["one"], f"{unknown}{said['paid']}.{others}")
