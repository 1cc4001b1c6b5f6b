"""The planner in the page on which adapter to take: a form that `book/assets/planner.js` brings to life.

Without JavaScript the page shows the plan of the form's first model and budget.
"""

import html
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from companion import which_adapter
from cpadapt.families import FAMILIES, counting, evidence
from cpadapt.families.counting import Cost, Offer
from cpadapt.inputs.backbones.specs import BACKBONES, Projection


@dataclass(frozen=True)
class Model:
    """A model's sizes, as its `config.json` has them."""

    name: str
    hidden: int
    layers: int
    queries: int
    """The query projection's features, heads times their length."""
    keys: int
    """The key projection's and the value projection's features."""
    inner: int
    """The MLP's features."""
    gated: bool = True
    """Whether the MLP has a gate."""

    def projections(self, targets: Sequence[str]) -> list[Projection]:
        """The modules of these kinds in all layers, in the order of `TARGETS`."""
        shapes = {
            "q": (self.queries, self.hidden),
            "k": (self.keys, self.hidden),
            "v": (self.keys, self.hidden),
            "o": (self.hidden, self.queries),
            "gate": (self.inner, self.hidden),
            "up": (self.inner, self.hidden),
            "down": (self.hidden, self.inner),
        }
        chosen = [target for target in TARGETS if target in targets and (target != "gate" or self.gated)]
        return [Projection(f"{layer}.{kind}", *shapes[kind]) for layer in range(self.layers) for kind in chosen]


OFFERED = ("lora", "cp", "melora", "symlora", "lokr")
"""The families that the script can count, by name."""

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
"""The kinds of modules that may be adapted."""


def _backbone(name: str) -> Model:
    """The sizes of a known backbone."""
    spec = BACKBONES[name]
    first = {p.name.rpartition(".")[2]: p for p in spec.linear_modules if ".0." in p.name}
    gated = "gate_proj" in first
    inner, q = first["gate_proj" if gated else "fc1"].out_features, first["q_proj"]
    return Model(spec.title, q.in_features, spec.layers, q.out_features, first["k_proj"].out_features, inner, gated)


MODELS = (
    Model("Llama-3.2-1B", hidden=2048, layers=16, queries=2048, keys=512, inner=8192),
    Model("Llama-3.1-8B", hidden=4096, layers=32, queries=4096, keys=1024, inner=14336),
    Model("Mistral-7B-v0.3", hidden=4096, layers=32, queries=4096, keys=1024, inner=14336),
    Model("Qwen2.5-7B", hidden=3584, layers=28, queries=3584, keys=512, inner=18944),
    *map(_backbone, ("qwen-1.5b", "qwen-0.5b", "smollm2", "opt-1.3b")),
    Model("BERT base", hidden=768, layers=12, queries=768, keys=768, inner=3072, gated=False),
)
"""The models to choose from."""

FIRST_TARGETS = ("q", "v")
FIRST_BUDGET = 20_000
"""Scalars of the form's first plan, which no LoRA rank on its first model fits."""

SIZES = {
    "hidden": "hidden size",
    "layers": "layers",
    "queries": "query features",
    "keys": "key and value features",
    "inner": "MLP features",
}
HEADS = ("family", "size", "scalars", "unused", "file", "AdamW's state", "as plain LoRA", "first rate")
UNITS = {"scalars": "trainable scalars", "file": "bytes on disk", "state": "MiB of AdamW state"}


def offers(projections: Sequence[Projection], budget: int, cost: Cost = counting.count) -> list[Offer]:
    """`cpadapt.families.counting.plan`, of the families that are `OFFERED`."""
    return [offer for offer in counting.plan(projections, budget, cost) if offer.family in OFFERED]


def rule() -> dict[str, Any]:
    """What `planner.advise` in the script needs to advise as `cpadapt.families.evidence` does."""
    return {
        "sentences": {name: typeset(sentence) for name, sentence in evidence.sentences().items()},
        "families": evidence.measured()["families"],
        "titles": {name: family.TITLE for name, family in FAMILIES.items()},
        "measured": [
            sorted(f"{out}x{into}:{times}" for out, into, times in study["projections"])
            for study in evidence.measured()["studies"]
        ],
        "sides": evidence.sides(),
        "far": evidence.FAR,
        "nearly": evidence.NEARLY,
    }


def typeset(sentence: str) -> str:
    """A sentence of the command line as the page prints it, with a true minus and a narrow space before %."""
    return re.sub(r"(?<![\w}])-(?=\d)", "−", sentence).replace(" %", "\u202f%")


def form() -> str:
    """The planner as HTML, with its data."""
    data: dict[str, Any] = {
        "models": [asdict(model) for model in MODELS],
        "families": [
            {"name": name, "title": FAMILIES[name].TITLE, "rates": which_adapter.rate_rows().get(name)}
            for name in OFFERED
        ],
        "heads": HEADS,
        "rule": rule(),
    }
    options = "".join(f"<option>{html.escape(model.name)}</option>" for model in MODELS)
    first = asdict(MODELS[0])
    sizes = "".join(
        f'<label>{said} <input type="number" name="{name}" min="1" step="1" value="{first[name]}"></label>'
        for name, said in SIZES.items()
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    boxes = "".join(
        f'<label><input type="checkbox" name="target" value="{target}"{" checked" * (target in FIRST_TARGETS)}> '
        f"{target}</label>"
        for target in TARGETS
    )
    units = "".join(f'<option value="{name}">{said}</option>' for name, said in UNITS.items())
    adapted = MODELS[0].projections(FIRST_TARGETS)
    advice = evidence.recommend(adapted, offers(adapted, FIRST_BUDGET))
    note = "".join(
        f"<p>{html.escape(typeset(line))}</p>" for line in (advice.take, advice.why, advice.unknown) if line
    )
    script = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return f"""<div class="planner" role="group" aria-label="The largest adapter of each family that fits a budget">
<form aria-label="Planner">
<fieldset><legend>Model</legend>
<label>known <select name="model">{options}<option value="">my own sizes</option></select></label>{sizes}
<label><input type="checkbox" name="gated" checked> gated MLP</label></fieldset>
<fieldset><legend>Modules to adapt</legend>{boxes}</fieldset>
<fieldset><legend>Budget</legend>
<label>at most <input name="budget" inputmode="decimal" size="12" value="{FIRST_BUDGET}"></label>
<label>in <select name="unit">{units}</select></label>
<label class="planner-slide">from small to large
<input type="range" name="slider" min="0" max="240" step="1"></label></fieldset>
</form>
<table class="planner-table"><thead><tr>{heads}</tr></thead><tbody aria-live="polite">{_rows()}</tbody></table>
<div class="planner-note" aria-live="polite">{note}</div>
<script type="application/json">{script}</script></div>"""


def _rows() -> str:
    """The plan of the form as it stands at first."""
    adapted = MODELS[0].projections(FIRST_TARGETS)
    rank = counting.count("lora", adapted, 1)
    rows = []
    for offer in offers(adapted, FIRST_BUDGET):
        family = FAMILIES[offer.family]
        if offer.not_applicable:
            cells = f'<td>–</td><td colspan="6">not for {html.escape(offer.not_applicable)}</td>'
        elif not offer.size:
            cells = f'<td>none</td><td colspan="6">the smallest takes {offer.smallest_cost:,} scalars</td>'
        else:
            scalars, state = offer.parameters or 0, (offer.adam_bytes or 0) / 2**20
            said = (
                f"{offer.size:,}",
                f"{scalars:,}",
                f"{100 * (offer.unspent or 0) / FIRST_BUDGET:.1f} %",
                f"{offer.file_bytes:,} B",
                f"{state:.2g} MiB",
                f"{counting.FLOAT32_BYTES * rank * family.columns(offer.size):,} B, rank"
                f" {family.columns(offer.size):,}",
                which_adapter.first_rate_text(offer.family, scalars / rank),
            )
            cells = "".join(f'<td data-head="{head}">{cell}</td>' for head, cell in zip(HEADS[1:], said, strict=True))
        rows.append(f'<tr><th scope="row">{family.TITLE}</th>{cells}</tr>')
    return "".join(rows)
