"""The draws of three seeds on the page on how sure one can be, which `book/assets/three_seeds.js` brings to life.

Unmoved, and without JavaScript, it shows the mean difference of every choice of three seeds, and how many of these
choices miss the winner of all seeds.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion import noise, quantities
from cpadapt.families import FAMILIES

TASK = "sst2"
LORA, CP = noise.PAIRS["lora1_cp11"]

LOW, HIGH = -2.0, 3.0
"""The ends of the picture's axis, in points."""
BAR = 0.25
"""The width of a bar, in points. A bar includes its upper end, so that no bar has both signs, and 0 isn't a lead."""
TOP, HEIGHT = 42, 140
"""Pixels above the highest bar, for the names, and of that bar."""


def counts(cell: tuple[str, int]) -> list[int]:
    """How many items each run of a cell has right, by ascending seed."""
    found: list[int] = noise.over_seeds(TASK).outcomes[cell].right.sum(1).astype(int).tolist()
    return found


def bars(gaps: Sequence[int], items: int) -> dict[float, int]:
    """How many choices of three seeds have a mean in each bar, by the bar's upper end in points.

    Args:
        gaps: by seed, how many more items LoRA has right than CP.
        items: that are asked.
    """
    sums = Counter(sum(three) for three in itertools.combinations(gaps, 3))
    found: Counter[float] = Counter()
    for total, ways in sums.items():
        found[BAR * math.ceil(100 * total / (3 * items) / BAR)] += ways
    return dict(sorted(found.items()))


def form() -> str:
    """The figure as HTML, with its data."""
    lora, cp = counts(LORA), counts(CP)
    cells = noise.over_seeds(TASK)
    items, seeds = len(cells.outcomes[LORA].items), [seed for seed, _ in cells.outcomes[LORA].seeds]
    data = {"low": LOW, "high": HIGH, "items": items, "seeds": seeds, "lora": lora, "cp": cp}
    table = pd.DataFrame({"seed": seeds, "LoRA 1, items right": lora, "CP 11, items right": cp, "items": items})
    missed = quantities.value(f"noise.wrong_sign.{TASK}.lora1_cp11").text("unit")
    all_seeds = quantities.value(f"noise.over_seeds.{TASK}.lora1_cp11")
    said = (
        f"Of all {math.comb(len(seeds), 3):,} ways to take three of these {len(seeds)} seeds, {missed} put CP ahead, "
        "or neither."
    )
    heights = bars(np.subtract(lora, cp).tolist(), items)
    drawn = "".join(_bar(end, HEIGHT * ways / max(heights.values())) for end, ways in heights.items())
    foot, zero, mean = TOP + HEIGHT, _place(0), _place(float(all_seeds.value))
    ticks = "".join(
        f'<text x="{_place(at)}%" y="{foot + 52}">{_signed(at)}</text>' for at in range(math.floor(LOW) + 1, int(HIGH))
    )
    label = f"LoRA 1 minus CP 11 on SST-2, the mean of three seeds. {said}"
    return f"""<div class="three-seeds" role="group" aria-label="{label}">
<p>{said}</p>
<svg height="{foot + 84}" width="100%" role="img" aria-label="Bars, most of them above 0">
<g class="three-seeds-bars">{drawn}</g><g class="three-seeds-ticks">{ticks}<text x="50%" y="{foot + 72}">\
LoRA 1 − CP 11, mean of three seeds, points</text></g>
<line x1="{zero}%" x2="{zero}%" y1="0" y2="{foot + 36}"/>
<line class="three-seeds-all" x1="{mean}%" x2="{mean}%" y1="24" y2="{foot + 36}"/>
<text class="three-seeds-left" x="{zero}%" dx="-8" y="12">CP ahead</text>
<text x="{zero}%" dx="8" y="12">LoRA ahead</text>
<text x="{mean}%" dx="8" y="34">all {len(seeds)} seeds</text>
<g class="three-seeds-drawn" data-top="{foot + 8}" data-foot="{foot + 32}"></g></svg>
<p class="three-seeds-buttons"><button type="button" name="one">Draw three seeds</button>
<button type="button" name="many">Draw 100 times</button>
<button type="button" name="clear">Start over</button></p>
<p class="three-seeds-last" aria-live="polite"></p><p class="three-seeds-tally"></p>
<script type="application/json">{json.dumps(data, separators=(",", ":"))}</script>
<script type="text/csv">{table.to_csv(index=False)}</script></div>"""


def _bar(end: float, height: float) -> str:
    family = "lora" if end > 0 else "cp"
    return (
        f'<rect x="{_place(end - BAR)}%" y="{TOP + HEIGHT - height:.1f}" width="{100 * BAR / (HIGH - LOW):g}%"'
        f' height="{height:.1f}" fill="{FAMILIES[family].COLOUR}"/>'
    )


def _place(points: float) -> str:
    """Where a difference stands, in percent of the picture's width."""
    return f"{100 * (points - LOW) / (HIGH - LOW):.4g}"


def _signed(points: int) -> str:
    return f"{points:+g}".replace("-", "−") if points else "0"
