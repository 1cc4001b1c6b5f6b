"""The paper's claims as a grid, a row for each claim and task and a column for each case, one coloured cell a verdict.

A cell is a link to its row of the evidence. The numbers behind it are its title, which `book/assets/explained.js`
shows when the cell has the pointer or the focus.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from companion import quantities, verdicts
from companion.claims import Verdict
from companion.verdicts import CASES, CLAIMS, JUDGED
from cpadapt.analysis.charts import task_name


@dataclass(frozen=True)
class Kind:
    """What a reader is told of a claim."""

    symbol: str
    said: str
    verdicts: tuple[Verdict, ...]
    meaning: str

    @property
    def css(self) -> str:
        """The class of its cells."""
        return "claim-" + self.said.replace(" ", "-")


KINDS = (
    Kind("✓", "holds", (Verdict.HOLDS,), "the whole interval is where the claim wants it"),
    Kind("✗", "fails", (Verdict.FAILS,), "the whole interval is elsewhere"),
    Kind("?", "undecided", (Verdict.OPEN, Verdict.EDGE), "the interval crosses an end, or one budget decides"),
    Kind("○", "not judged", (Verdict.UNJUDGED,), "an adapter isn't shown to have learned, wherever the interval is"),
    Kind("–", "not measured", (Verdict.UNMEASURED,), "runs are missing"),
)


def kind_of(verdict: Verdict) -> Kind:
    """The kind that a verdict on accuracy is shown as."""
    (kind,) = (kind for kind in KINDS if verdict in kind.verdicts)
    return kind


def told(claim: str, task: str, case: str) -> tuple[Verdict, str]:
    """A verdict, and the reason if it is not judged."""
    verdict, _, reason = quantities.value(f"claims.verdict.{claim}.{task}.{case}").text().partition(": ")
    return Verdict(verdict), reason


WHY_UNDECIDED = {
    Verdict.OPEN: "Undecided: the interval reaches across an end of what is claimed.",
    Verdict.EDGE: "Undecided: the verdict hangs on one budget or on one answer.",
}


def explained(claim: str, task: str, case: str) -> str:
    """A verdict in a sentence, and below it each difference with its interval and where the claim wants it."""
    verdict, reason = told(claim, task, case)
    kind = kind_of(verdict).said.capitalize()
    lines = [WHY_UNDECIDED.get(verdict) or f"{kind}{reason and f': {reason}'}."]
    for rule in CLAIMS[claim]["rules"]:
        found = verdicts.finding(rule, task, case)
        if found.estimate is not None and found.region is not None:
            difference = quantities.value(f"claims.difference.{rule}.{task}.{case}").text("signed|full")
            elsewhere = ", but the interval is wholly elsewhere" * found.would_fail
            lines.append(
                f"{verdicts.DIFFERENCES[rule]}: {difference}; wanted {verdicts.wanted(found.region)}{elsewhere}."
            )
    return "\n".join(lines)


def grid() -> Any:
    """The grid for a notebook, with its legend."""
    from IPython.display import HTML  # comes with Jupyter, and is needed only there

    said = "; ".join(f"{case.title}: {_counted(name)}" for name, case in CASES.items())
    legend = "".join(
        f'<li><span class="{kind.css}" aria-hidden="true">{kind.symbol}</span> <b>{kind.said}</b>: {kind.meaning}</li>'
        for kind in KINDS
    )
    return HTML(
        f'<figure class="claims" role="group" aria-label="Verdicts by claim and setting. {html.escape(said)}.">'
        f"<ul>{legend}</ul><table>{_head()}{''.join(map(_rows, CLAIMS))}</table>"
        f'<script type="text/csv">{table().to_csv(index=False)}</script></figure>'
    )


def table() -> pd.DataFrame:
    """The grid's cells, one a row, with what each says."""
    return pd.DataFrame(
        {
            "claim": verdicts.said(CLAIMS[claim]),
            "task": task_name(task),
            "model": about.model,
            "setting": about.setting,
            "verdict": kind_of(told(claim, task, case)[0]).said,
            "numbers": " ".join(explained(claim, task, case).split("\n")),
        }
        for claim, task in JUDGED
        for case, about in CASES.items()
    )


def _counted(case: str) -> str:
    """How many cells of a case are of each kind."""
    kinds = [kind_of(told(claim, task, case)[0]) for claim, task in JUDGED]
    return ", ".join(f"{kinds.count(kind)} {kind.said}" for kind in KINDS if kind in kinds)


def _head() -> str:
    models = [(model, len(list(cases))) for model, cases in groupby(case.model for case in CASES.values())]
    above = "".join(f'<th colspan="{columns}" scope="colgroup">{model}</th>' for model, columns in models)
    below = "".join(f'<th scope="col">{case.setting}</th>' for case in CASES.values())
    return f'<thead><tr><td rowspan="2"></td>{above}</tr><tr>{below}</tr></thead>'


def _rows(claim: str) -> str:
    tasks: Sequence[str] = [task for name, task in JUDGED if name == claim]
    if not tasks:
        return ""
    said = html.escape(verdicts.said(CLAIMS[claim]))
    rows = "".join(
        f'<tr><th scope="row">{task_name(task)}</th>{"".join(_cell(claim, task, case) for case in CASES)}</tr>'
        for task in tasks
    )
    return f'<tbody><tr><th colspan="{1 + len(CASES)}" scope="rowgroup">{said}</th></tr>{rows}</tbody>'


def _cell(claim: str, task: str, case: str) -> str:
    kind = kind_of(told(claim, task, case)[0])
    title = html.escape(explained(claim, task, case), quote=True)
    link = f"verdicts.html#{verdicts.anchor(claim, task, case)}"
    if kind.verdicts == (Verdict.UNMEASURED,):
        link = "#not-measured"
    symbol = f'<span aria-hidden="true">{kind.symbol}</span><span class="unseen">{kind.said}</span>'
    return f'<td class="{kind.css}"><a class="explained" href="{link}" title="{title}">{symbol}</a></td>'
