"""What the README says and shows is so."""

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from by_hand import answers, judged, read
from scipy import stats

from companion import causes, contrasts, noise, rates
from companion.claims import MARGIN, Verdict, learned, lora_ahead
from companion.sphinx import pictures
from cpadapt import load_projections, read_records
from cpadapt.analysis.cells import cells_of
from cpadapt.analysis.statistics import compare, holm
from cpadapt.families import counting
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAID = " ".join(README.split())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def nearly(svg: str) -> str:
    """A picture without what other versions of pandas round otherwise: last digits, and a name made from them."""
    named = re.sub(r"view_[0-9a-f]{16}", "view", svg)
    return re.sub(r"-?\d+\.\d{4,}", lambda number: f"{float(number[0]):.3f}", named)


def test_the_picture_is_drawn_from_the_records() -> None:
    for name, drawn in pictures().items():
        kept = (ROOT / "book" / "assets" / name).read_text(encoding="utf-8")
        assert nearly(kept) == nearly(drawn), f"{name} is not what `make picture` draws"
        assert f"book/assets/{name}" in README


def test_its_numbers() -> None:
    square = [Projection("", 2048, 2048)]
    assert f"one rank, {counting.step('lora', square)} scalars on\na 2048×2048 projection" in README
    assert f"over 32×64×32×64 spends it in steps of {counting.step('cp', square)}" in README
    records = read_records(ROOT / "results" / "smollm2")
    seeds = records[records["task"] == "sst2"].groupby(["label", "size", "learning_rate"], dropna=False)["seed"]
    assert set(seeds.nunique()) == {3}
    assert "on SST-2 under the paper's protocol, three seeds a cell" in SAID
    # The recipe's budget is one LoRA rank on MiniLM, the default backbone of the notebook; the plan's one on SmolLM2.
    for name, amount in (("minilm", 9216), ("smollm2", 57600)):
        assert counting.step("lora", load_projections(name)) == amount
        assert re.search(rf"budget {amount}\b", README)


def test_the_papers_size() -> None:
    cells: dict[tuple[str, int], dict[int, list[int]]] = {}
    for line in read("size-paper"):
        assert line["config"]["task"] == "sst2", "RTE and BoolQ are said to be missing"
        by_seed = cells.setdefault((line["label"], line["config"]["size"]), {})
        by_seed[line["config"]["seed"]] = answers(line["outcome"])
    table = {cell: np.array([of[seed] for seed in (0, 1, 2)]) for cell, of in cells.items()}
    assert all(len(of) == 3 for of in cells.values())
    pairs = zip((1, 2, 3, 4, 6, 8), (17, 35, 53, 71, 106, 142), strict=True)
    gap = judged(np.mean([table["cp", c] - table["lora", r] for r, c in pairs], axis=0).tolist())
    low, high = gap["interval"]
    ends = f"{low:.1f} to {high:.1f}".replace("-", "−")
    assert f"differ by {abs(gap['gap']):.1f} points (95 % interval {ends}, three seeds)" in SAID
    best = max(of.mean() for cell, of in table.items() if cell[0] != "head")
    assert f"the best adapter is {100 * (best - table['head', 0].mean()):.1f} points above the head alone" in SAID


KEYS = (("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1))


def lines(task: str, cell: tuple[str, int], *studies: str) -> list[dict[str, Any]]:
    found = [line for study in studies for line in read(study)]
    return [x for x in found if (x["config"]["task"], x["label"], x["config"]["size"]) == (task, *cell)]


def on_dev(task: str, cell: tuple[str, int]) -> np.ndarray:
    """In points, by draw: the mean of two seeds, each at the step that it was judged at."""
    by_draw: dict[int, list[float]] = {}
    for line in lines(task, cell, "smollm2-data-seeds", "smollm2-data-seeds-again"):
        (best,) = (e for e in line["evaluations"] if e["step"] == line["best_step"])
        by_draw.setdefault(line["config"]["data_seed"], []).append(100 * best["dev_correct"] / best["dev_total"])
    assert {len(of) for of in by_draw.values()} == {2}
    return np.array([np.mean(by_draw[draw]) for draw in range(1, 31)])


def test_what_dev_says() -> None:
    """Its other items for each draw show what eval's few do not, and that SST-2 is flat on eval alone."""
    for task, pair, said in (
        ("rte", (("lora", 1), ("cp", 11)), "for each of thirty draws of the examples, it is {} and clear"),
        ("rte", (("cp", 44), ("cp", 1)), "not clear on eval, and is on dev, by {} points"),
        ("sst2", (("cp", 44), ("cp", 1)), "44 components are {} points ahead of one"),
    ):
        gap = on_dev(task, pair[0]) - on_dev(task, pair[1])
        # Draws of RTE's dev share a fifth of their items, by which the error is more by no more than a fifth.
        reach = 1.2 * stats.t.ppf(0.975, 29) * gap.std(ddof=1) / 30**0.5
        assert gap.mean() - reach > 0
        assert said.format(f"{gap.mean():.1f}") in SAID
    (items,) = {line["outcome"]["total"] for line in lines("sst2", ("cp", 1), "smollm2-seeds")}
    assert f"flat to within a point on the {items} sentences of eval" in SAID


def test_the_order_of_the_examples_moves_rte() -> None:
    """On the items asked, which is what a run is chosen by."""
    assert "neither initial weights nor the order" not in SAID
    assert "on these the order of the examples moves the adapters' mean, too" in SAID
    total = np.zeros((10, 10))
    for cell in KEYS:
        for line in lines("rte", cell, "smollm2-orders"):
            outcome = line["outcome"]
            total[line["config"]["seed"], line["config"]["order_seed"]] += outcome["correct"] / outcome["total"]
    by_order, by_weights = total.mean(0), total.mean(1)
    rest = total - by_order - by_weights[:, None] + total.mean()
    ratio = 10 * by_order.var(ddof=1) / ((rest**2).sum() / 81)
    assert stats.f.sf(ratio, 9, 81) < 0.001


def test_the_backbone_and_the_draw_are_named_at_first_mention() -> None:
    assert "SmolLM2" not in README[: README.index("SmolLM2-135M-Instruct")]
    first = SAID.index("*SmolLM2-135M-Instruct")
    caption = SAID[first : SAID.index("*", first + 1)]
    assert "weights are dequantized from four bits" in caption
    assert "the worst of 31" in caption
    mean = {}
    for draw in range(31):
        studies = ("smollm2-data-seeds", "smollm2-data-seeds-again") if draw else ("smollm2-seeds",)
        runs = [x for cell in KEYS for x in lines("sst2", cell, *studies) if x["config"]["data_seed"] == draw]
        mean[draw] = np.mean([x["outcome"]["correct"] for x in runs])
    assert min(mean, key=mean.__getitem__) == 0


def test_sizes_between_the_first_two_ranks() -> None:
    """Three seeds at the paper's rates, which are in no other sentence here."""
    gaps = []
    for task in ("sst2", "rte", "boolq"):
        by_cell = {
            cell: [answers(x["outcome"]) for x in sorted(of, key=lambda x: x["config"]["seed"])]
            for cell in (("cp", 15), ("cp", 19), ("lora", 1))
            if (of := lines(task, cell, "smollm2"))
        }
        lower, upper, rank = (np.array(of, dtype=float) for of in by_cell.values())
        gaps.append(judged(((lower + upper) / 2 - rank).tolist()))
    mean = sum(gap["gap"] for gap in gaps) / 3
    reach = 1.96 * math.hypot(*(gap["error"] for gap in gaps)) / 3
    assert f"is on the average over the three tasks {-mean:.1f} points below LoRA's first rank, give or take" in SAID
    assert f"give or take {reach:.1f}." in SAID
    assert "not tested" not in SAID


def test_what_is_found() -> None:
    tasks = {task: rates.measured(("smollm2", "smollm2-rates"), task) for task in ("sst2", "rte", "boolq")}
    tuned = {task: rates.ways(records)[rates.CELL] for task, records in tasks.items()}
    # Three seeds at rates that dev chose, which hangs on single budgets, is no lead.
    assert lora_ahead(tuned["rte"]).verdict is Verdict.EDGE
    assert "2.6" not in README
    whole = contrasts.measured(("boolq-lifted",), "boolq")
    on_boolq = lora_ahead(whole).estimate
    assert on_boolq is not None
    keys = contrasts.measured(("smollm2-seeds",), "sst2")
    (on_sst2,) = (contrast.estimate for contrast in contrasts.families(keys, "SST-2"))
    assert on_sst2.seeds == 100
    (low, high), ends = (e.interval() for e in (on_sst2, on_boolq))
    assert (
        f"so by {100 * on_sst2.mean:.1f} points on SST-2 at the smallest LoRA's budget (95 % interval"
        f" {100 * low:.1f} to {100 * high:.1f} over items and a hundred seeds;"
    ) in SAID
    assert (
        f"and by {100 * on_boolq.mean:.1f} over two budgets on BoolQ with all of its examples"
        f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f}), both at ten times the paper's learning rates"
    ) in SAID
    assert len(whole.matched("lora", "cp")) == 2
    drawn = contrasts.measured(("smollm2",), "sst2")
    in_the_figure = compare(drawn.outcomes["cp", 11], drawn.outcomes["lora", 1])
    assert in_the_figure.seeds == 3
    assert f"the figure's three seeds, at lower rates, have {100 * in_the_figure.mean:.1f} the other way" in SAID
    over_all = lora_ahead(tuned["sst2"]).estimate
    assert over_all is not None
    low, high = over_all.interval()
    assert f"it is not clear ({100 * over_all.mean:.1f}, −{-100 * low:.1f} to {100 * high:.1f})" in SAID
    one, most = (100 * whole.outcomes["cp", size].right.mean() for size in (1, 44))
    assert f"from {one:.1f} % with one component to {most:.1f} % with 44" in SAID
    of_rte = contrasts.measured(("smollm2-seeds",), "rte")
    one, most = (100 * of_rte.outcomes["cp", size].right.mean() for size in (1, 44))
    (on_rte,) = (contrast.estimate for contrast in contrasts.families(of_rte, "RTE"))
    low, high = on_rte.interval()
    assert low < 0 < high, "open"
    assert on_rte.seeds == 100
    assert (
        f"it is {100 * on_rte.mean:.1f} over a hundred seeds, which its few items leave open"
        f" (−{-100 * low:.1f} to {100 * high:.1f})"
    ) in SAID
    assert f"on RTE, where CP rises from {one:.1f} % to {most:.1f} % over a hundred seeds on one draw" in SAID
    over_draws, again = {}, {}
    for task in ("sst2", "rte"):
        twice = [contrasts.measured((f"smollm2-data-seeds{which}",), task) for which in ("", "-again")]
        of_draws = contrasts.mean_of(*twice).outcomes
        over_draws[task] = compare(of_draws["cp", 44], of_draws["cp", 1])
        repetitions = causes.trained_twice(task).values()
        again[task] = 100 * math.sqrt(statistics.mean(causes.again(pairs)[0] for pairs in repetitions))
    assert f"deviation of {again['sst2']:.1f} points on SST-2 and {again['rte']:.1f} on RTE" in SAID
    assert f"of {again['sst2']:.1f} points on SST-2 and {again['rte']:.1f} on RTE" in " ".join(CHANGELOG.split())
    assert {e.seeds for e in over_draws.values()} == {30}
    assert over_draws["rte"].interval()[0] < 0 < over_draws["rte"].mean, "not clearly on eval over draws"
    assert compare(of_rte.outcomes["cp", 44], of_rte.outcomes["cp", 1]).interval()[0] > 0, "seems to pay"
    p_values = [c.estimate.p_value() for c in contrasts.pairs(of_rte, list(noise.PAIRS.values()), "RTE")]
    gain = list(noise.PAIRS).index("cp44_cp1")
    assert 0.05 < holm(p_values)[gain] < 0.06, "just not clear after correction"
    assert compare(keys.outcomes["cp", 44], keys.outcomes["cp", 1]).equivalence_p_value(MARGIN) < 0.05, "flat"
    assert over_draws["sst2"].equivalence_p_value(MARGIN) < 0.05, "flat over draws too"
    assert all(e.interval()[0] > 0 for e in (on_sst2, on_boolq)), "higher"
    for task in ("rte", "boolq"):
        of_rates, of_sizes = rates.moved(rates.response(tasks[task]))["cp"]
        assert of_rates >= of_sizes, "about as much as the budget"


def test_a_thousand_examples_of_boolq_are_learned() -> None:
    of = contrasts.measured(("smollm2-seeds-boolq",), "boolq")
    assert of.classes is not None
    assert learned(of, ("lora", 1)).verdict is Verdict.HOLDS
    assert len(of.outcomes["lora", 1].seeds) == 30
    balanced = {cell: 100 * of.balanced(cell).mean() for cell in (("lora", 1), ("head", 0))}
    assert (
        f"over thirty seeds LoRA's smallest has {100 * of.outcomes['lora', 1].right.mean():.1f} %, little more than"
        f" the commonest answer's {100 * of.majority:.1f}, and a balanced accuracy of {balanced['lora', 1]:.1f}"
        f" where the head alone has {balanced['head', 0]:.1f}"
    ) in SAID


def test_what_is_found_on_the_encoder() -> None:
    encoder = contrasts.on_record(("minilm",))
    gained = []
    for task in ("sst2", "sick", "mrpc", "boolq", "rte"):
        of = cells_of(record for record in encoder if record.config.task == task)
        one, nine, rank = (of.outcomes[cell] for cell in (("cp", 1), ("cp", 9), ("lora", 1)))
        gained.append(100 * compare(nine, one).mean)
        ahead_of_nine = compare(rank, nine)
        assert ahead_of_nine.interval()[1] > 0, "nowhere shown to pass that rank"
        if task == "sst2":
            assert f"which is ahead by {100 * ahead_of_nine.mean:.1f} points on SST-2" in SAID
            assert ahead_of_nine.interval()[0] > 0, "clear of its error"
        if task == "boolq":
            found = lora_ahead(of)
            assert found.told == "not judged: LoRA at an unsuitable rate"
            assert found.unfit == (("lora", 4), ("lora", 8)), "two largest ranks"
            assert "On BoolQ LoRA's two largest ranks are not judged" in SAID
    assert learned(of, *(cell for cell in of.outcomes if cell[0] != "head")).verdict is Verdict.OPEN, "RTE is not"
    shares = [100 * of.budgets["cp", size] / of.budgets["lora", 1] for size in (1, 9)]
    assert "from 1 to 9 components, at {:.0f} and {:.0f} % of its budget".format(*shares) in SAID
    rises = "by {:.1f} points on SST-2, {:.1f} on SICK and {:.1f} on MRPC, and by {:.1f} on BoolQ, which is not clear"
    assert rises.format(*gained) in SAID


def test_runs_an_hour() -> None:
    rows = json.loads((ROOT / "results/bench/runs-per-hour-smollm2-sst2-b8.json").read_text(encoding="utf-8"))["rows"]
    (bank,) = (row for row in rows if row["what"] == "bank")
    peers = [row for row in rows if "peers" in row and "runs_per_hour" in row]
    given = bank["runs_per_hour"]
    one = max(row["runs_per_hour"] for row in peers if row["peers"] == 1)
    best = max(row["runs_per_hour"] for row in peers)
    assert (
        f"bank of {bank['times']['runs']} runs of SmolLM2 on SST-2 gives {given:,.0f} runs an hour once it has started"
        in SAID
    )
    assert f", {given / one:,.0f} times what one process of Hugging Face's Trainer with PEFT gives" in SAID
    assert f", and {given / best:,.0f} times what the best number of such processes gives" in SAID


def test_what_the_whole_study_took() -> None:
    records = load_records(ROOT / "results" / "smollm2")
    assert {r.config.protocol.steps for r in records} == {5000}
    assert {r.provenance.device for r in records} == {"NVIDIA H100 80GB HBM3"}
    seconds = sum((r.cost.train_seconds + r.cost.evaluation_seconds) / r.cost.bank_runs for r in records)
    said = f"design on SmolLM2, {len(records)} runs of 5,000 steps, took {seconds / 60:.0f} minutes of training"
    assert said in SAID


def test_what_the_study_in_small_took() -> None:
    costs = {(r.cost, r.provenance.device) for r in load_records(ROOT / "results" / "small")}
    ((cost, device),) = costs
    assert device.endswith("CPU, 2 threads")
    seconds = cost.train_seconds + cost.evaluation_seconds
    assert f"The study in small took {seconds:.0f} seconds of training and evaluations on two CPU threads" in SAID


def test_files_that_it_links_are_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'(?:src|srcset)="([^"]+)"', README)
    local = [link for link in links if "://" not in link]
    assert len(local) >= 5
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_it_has_the_records_word_on_opt() -> None:
    assert not {"opt-1.3b"} & set(read_records(ROOT / "results")["backbone"])
    assert "OPT-1.3B, is **not measured** here" in README
