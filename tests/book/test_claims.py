"""The claims: every verdict and number again, by hand from the records' own lines."""

import functools
import math
import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
from by_hand import judged, read, seeds_by_cell

ROOT = Path(__file__).parents[2]
LEDGER = tomllib.loads((ROOT / "book" / "claims.toml").read_text(encoding="utf-8"))
PUBLISHED = tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))
TASKS = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
CASES = FIXED, TUNED, MANY, ALL, ENCODER, OPT = (
    "SmolLM2, paper's rates", "SmolLM2, tuned", "SmolLM2, many seeds", "SmolLM2, all examples", "MiniLM, all examples",
    "OPT-1.3B",
)  # fmt: skip
STUDIES = {
    FIXED: ("smollm2", "smollm2-splits"), TUNED: ("smollm2", "smollm2-rates"),
    MANY: ("smollm2-seeds", "smollm2-seeds-boolq"), ALL: ("boolq-lifted",), ENCODER: ("minilm",),
}  # fmt: skip
LINES = {case: [line for study in studies for line in read(study)] for case, studies in STUDIES.items()}
RATES = {"lora": 1e-4, "cp": 2e-4}
# By rank and components, which cost nearly as much, as a test of the counts shows; the second where rates were tried.
MATCHED = {
    FIXED: {1: 11, 2: 22, 3: 33, 4: 44, 6: 66, 8: 88}, TUNED: {1: 11, 2: 22, 4: 44, 8: 88}, MANY: {1: 11},
    ALL: {1: 11, 4: 44}, ENCODER: {2: 19, 4: 38, 8: 76},
}  # fmt: skip
# The default's size whose budget is nearest, as a test of the counts shows.
SPLITS = {
    ("cp-12x48", 17): 22, ("cp-12x48", 35): 44, ("cp-16x36", 20): 22, ("cp-16x36", 40): 44,
    ("cp-18x32", 21): 22, ("cp-18x32", 43): 44, ("cp-8x8x9", 40): 22, ("cp-8x8x9", 81): 44,
}  # fmt: skip
Pair = tuple[tuple[str, int], tuple[str, int]]


def pairs(rule: str, case: str) -> list[Pair]:
    """The cells whose difference a rule takes."""
    lora, cp = ([(label, size) for size in sizes] for label, sizes in (
        ("lora", MATCHED[case].keys()), ("cp", MATCHED[case].values())
    ))  # fmt: skip
    found: dict[str, list[Pair]] = {
        "cp_not_ahead": list(zip(cp, lora, strict=True)),
        "lora_ahead": list(zip(lora, cp, strict=True)),
        "lora_slightly_ahead": list(zip(lora, cp, strict=True)),
        "first_rank_learns": [(("cp", 11), ("head", 0))],
        "flat_from_first_rank": [(cell, ("cp", 11)) for cell in cp_above(case)],
        "cp_gains": [(cell, ("cp", 1)) for cell in cp],
        "cp_saturates": [(cp[-1], ("cp", {FIXED: 33, TUNED: 22, MANY: 11, ALL: 11, ENCODER: 38}[case]))],
    }
    return found[rule]


def cp_above(case: str) -> list[tuple[str, int]]:
    """CP's sizes above LoRA's first rank's budget, which 11 components have."""
    tried = {FIXED: (15, 19, 22, 33, 44, 66, 88), TUNED: (22, 44, 88), MANY: (44,)}
    return [("cp", size) for size in tried[case]] if case in tried else []


# Where each difference has to lie, in points.
WANTED = {
    "cp_not_ahead": (-math.inf, 1),
    "lora_ahead": (0, math.inf),
    "first_rank_learns": (0, math.inf),
    "lora_slightly_ahead": (0, 3),
    "flat_from_first_rank": (-1, 1),
    "cp_gains": (0, math.inf),
    "cp_saturates": (-1, 1),
    "splits_alike": (-1, 1),
}
TRIED = (1, 4, 8, 11, 22, 44, 88)
MANY_SEEDS = {"sst2": 100, "rte": 100, "boolq": 30}
HOLDS, FAILS, EDGE, OPEN = "holds", "does not hold", "on the edge", "cannot be told"
UNJUDGED, UNMEASURED = "not judged", "not measured"
KINDS = {HOLDS: "hold", FAILS: "do not hold", EDGE: EDGE, OPEN: OPEN, UNJUDGED: UNJUDGED}
Chapters = Callable[[str], Any]


@pytest.fixture(scope="module")
def page(chapter: Chapters) -> Any:
    return chapter("claims")


def on_dev(line: dict[str, Any]) -> int:
    (best,) = (e for e in line["evaluations"] if e["step"] == line["best_step"])
    return int(best["dev_correct"])


def given(task: str, rule: str, case: str) -> bool:
    """Whether a rule's cells are on record."""
    if rule == "splits_alike":
        return case == FIXED
    if case == MANY:
        return rule != "cp_saturates"
    if case == ENCODER:
        # No size of CP has its first rank's budget.
        return rule not in ("first_rank_learns", "flat_from_first_rank")
    return task == "boolq" if case == ALL else case != OPT


@functools.cache
def runs(task: str, cell: tuple[str, int], case: str) -> list[dict[str, Any]]:
    by_rate: dict[float | None, list[dict[str, Any]]] = {}
    for line in LINES[case]:
        config = line["config"]
        if (config["task"], line["label"], config["size"]) == (task, *cell):
            by_rate.setdefault(config["learning_rate"], []).append(line)
    tuned = max(by_rate, key=lambda rate: sum(map(on_dev, by_rate[rate])))
    found = by_rate[RATES.get(cell[0].partition("-")[0]) if case == FIXED else tuned]
    return sorted(found, key=lambda line: line["config"]["seed"])


@functools.cache
def answers(task: str, cell: tuple[str, int], case: str) -> np.ndarray:
    """By seed and item."""
    return np.array([by_hand.answers(line["outcome"]) for line in runs(task, cell, case)], dtype=float)


@functools.cache
def over_the_readout(task: str, cell: tuple[str, int], case: str) -> dict[str, Any]:
    """In balanced accuracy."""
    weights = by_hand.weights(by_hand.classes(runs(task, cell, case)[0]["outcome"]))
    return judged(((answers(task, cell, case) - answers(task, ("head", 0), case)) * weights).tolist())


def one_answer(line: dict[str, Any]) -> bool:
    """Of two classes, to every item."""
    pairs = zip(by_hand.answers(line["outcome"]), by_hand.classes(line["outcome"]), strict=True)
    return len({of if right else 1 - of for right, of in pairs}) == 1


def why_not(task: str, cells: Iterable[tuple[str, int]], case: str) -> str | None:
    """Why nothing is judged by these cells, if so."""
    unfit = sorted({cell for cell in cells if over_the_readout(task, cell, case)["one-sided"][0] <= 0})
    if not unfit:
        return None
    families = {cell: {"cp": "CP", "lora": "LoRA"}[cell[0].partition("-")[0]] for cell in unfit}
    named = dict.fromkeys(families.values())
    if all(any(map(one_answer, runs(task, cell, case))) for cell in unfit):
        return f"{UNJUDGED}: {' and '.join(named)} at an unsuitable rate"
    if len(unfit) <= 3:
        named = dict.fromkeys(f"{ {'cp': 'CP', 'lora': 'LoRA'}.get(label, label) } {size}" for label, size in unfit)
    return f"{UNJUDGED}: {', '.join(named)} not shown to learn"


@functools.cache
def hand(rule: str, task: str, case: str) -> dict[str, Any]:
    if rule == "first_rank_learns":
        return over_the_readout(task, ("cp", 11), case)
    if rule == "splits_alike":
        # The one that is farthest off.
        each = [compared(((split, ("cp", size)),), task, case) for split, size in SPLITS.items()]
        return max(each, key=lambda one: abs(one["gap"]))
    return compared(tuple(pairs(rule, case)), task, case)


@functools.cache
def compared(of: tuple[Pair, ...], task: str, case: str) -> dict[str, Any]:
    return judged(np.mean([answers(task, a, case) - answers(task, b, case) for a, b in of], axis=0).tolist())


def lies(ends: tuple[float, float], rule: str) -> str:
    (low, high), (least, most) = WANTED[rule], ends
    return HOLDS if low < least and most < high else FAILS if most < low or least > high else OPEN


def verdict(rule: str, task: str, case: str) -> str:
    found = hand(rule, task, case)
    if rule == "first_rank_learns":
        return lies(found["one-sided"], rule)
    of = [(split, ("cp", size)) for split, size in SPLITS.items()] if rule == "splits_alike" else pairs(rule, case)
    cells = {cell for pair in of for cell in pair} - ({("cp", 1)} if rule == "cp_gains" else set())
    if reason := why_not(task, cells, case):
        return reason
    assert rule != "splits_alike", "the three are not judged"
    found_so = lies(found["one-sided"], rule)
    fewer = [compared(tuple(pair for pair in of if pair != other), task, case) for other in of if len(of) > 1]
    answer = 100 / found["items"] / len(found["by seed"]) / len(of)
    moved = [tuple(end + by for end in found["one-sided"]) for by in (answer, -answer)]
    others = {lies(ends, rule) for ends in (*(one["one-sided"] for one in fewer), *moved)}
    return EDGE if found_so != OPEN and others != {found_so} else found_so


def test_the_matched_budgets() -> None:
    spent = {(line["label"], line["config"]["size"]): line["counts"]["adapter"] for line in LINES[FIXED]}
    assert {size for label, size in spent if label == "lora"} == MATCHED[FIXED].keys()
    for rank, size in MATCHED[FIXED].items():
        missed = {size: abs(spent["cp", size] / spent["lora", rank] - 1) for label, size in spent if label == "cp"}
        assert min(missed, key=missed.__getitem__) == size
        assert missed[size] < 0.05
    assert {cell for cell in spent if cell[0].startswith("cp-")} == SPLITS.keys()
    for cell, size in SPLITS.items():
        missed = {size: abs(spent["cp", size] / spent[cell] - 1) for label, size in spent if label == "cp"}
        assert min(missed, key=missed.__getitem__) == size
        assert missed[size] < 0.05
    spent = {(line["label"], line["config"]["size"]): line["counts"]["adapter"] for line in LINES[ENCODER]}
    ranks = {rank for label, rank in spent if label == "lora"}
    near = {rank: size for rank in ranks for label, size in spent
            if label == "cp" and abs(spent[label, size] / spent["lora", rank] - 1) <= 0.05}  # fmt: skip
    assert near == MATCHED[ENCODER], "of the second rank and above"
    ladder = {"head": {0}, "lora": MATCHED[ALL].keys(), "cp": {1, *MATCHED[ALL].values()}}
    for label, sizes in ladder.items():
        assert {line["config"]["size"] for line in LINES[ALL] if line["label"] == label} == sizes


def test_the_tuned_cells_are_those_tried_at_all_rates() -> None:
    for label, sizes in (("lora", tuple(MATCHED[TUNED])), ("cp", TRIED)):
        rates: dict[tuple[str, int], set[float]] = {}
        for line in LINES[TUNED]:
            if line["label"] == label:
                place = line["config"]["task"], line["config"]["size"]
                rates.setdefault(place, set()).add(line["config"]["learning_rate"])
        whole = {RATES[label] * times for times in (1, 3, 10, 30)}
        tried = {place for place, known in rates.items() if sorted(known) == pytest.approx(sorted(whole))}
        assert tried == {(task, size) for task in TASKS for size in sizes}


def test_how_many_the_many_seeds_are() -> None:
    assert MANY_SEEDS.keys() == TASKS.keys()
    for task, many in MANY_SEEDS.items():
        by_cell = seeds_by_cell(line for line in LINES[MANY] if line["config"]["task"] == task)
        assert by_cell.keys() == {("head", 0), ("lora", 1), ("cp", 1), ("cp", 11), ("cp", 44)}
        assert all(seeds == set(range(many)) for seeds in by_cell.values())


def test_rte_is_nobodys_that_can_be_told(page: Any) -> None:
    said = [verdict("lora_ahead", "rte", case) for case in (FIXED, TUNED, MANY)]
    assert said == [f"{UNJUDGED}: CP 22, CP 33, LoRA 3 not shown to learn", EDGE, OPEN]
    assert verdict("cp_not_ahead", "rte", MANY) == HOLDS
    tuned = hand("lora_ahead", "rte", TUNED)
    assert page.glued["tuned_gap"] == f"{tuned['gap']:.1f}"
    assert page.glued["tuned_ends"] == "{:+.1f} to {:+.1f}".format(*tuned["one-sided"])
    (low, _), of = hand("lora_ahead", "rte", FIXED)["one-sided"], pairs("lora_ahead", FIXED)
    assert page.glued["paper_low"] == f"{low:+.4f}"
    assert 0 < low < 100 / 277 / 3 / len(of), "one answer of one run turns it"
    assert min(compared(tuple(of[:k] + of[k + 1 :]), "rte", FIXED)["one-sided"][0] for k in range(6)) < 0
    # With no end of seeds the chance to show a point would still be below four fifths.
    assert hand("lora_ahead", "rte", MANY)["items alone"] * (1.645 + 0.842) > 1, "what is short is items, not seeds"
    for case in (FIXED, TUNED):
        assert {line["config"]["seed"] for line in LINES[case]} == {0, 1, 2}
    for line in LINES[MANY]:
        papers = RATES.get(line["label"])
        assert line["config"]["learning_rate"] == (papers and pytest.approx(10 * papers))


def test_counts(page: Any) -> None:
    shown = page.rows("the paper's")
    by_hand = [f"{32 + 64 + 32 + 64 + 1} scalars", "4,096 scalars", f"{4096 / 193:.0f} components"]
    by_hand += [f"{48 * 193 * 8 / 2**20:.3f} MiB", f"{48 * 4096 * 8 / 2**20:.3f} MiB"]
    assert [row["ours"] for row in shown] == by_hand
    assert [row["the paper's"] for row in shown] == by_hand
    assert {row["verdict"] for row in shown} == {HOLDS}
    assert page.glued["answer"].startswith(
        f"Of {len(shown)} figures that can be counted {len(shown)} are the paper's."
    )


def test_verdicts(page: Any) -> None:
    shown = page.rows("claim", "task", FIXED)
    expected = [(claim, task) for claim in LEDGER["claim"] for task in claim["tasks"] if claim["name"] != "stable"]
    told: dict[str, list[str]] = {case: [] for case in CASES[:-1]}
    order = (FAILS, UNMEASURED, UNJUDGED, OPEN, EDGE, HOLDS)
    for row, (claim, task) in zip(shown, expected, strict=True):
        assert row["claim"] == claim["says"] + {"abstract": "", "second-hand": " (second-hand)"}[claim["source"]]
        assert row["task"] == TASKS[task]
        for case, known in told.items():
            each = [verdict(rule, task, case) if given(task, rule, case) else UNMEASURED for rule in claim["rules"]]
            wanted = min(each, key=lambda verdict: order.index(verdict.partition(":")[0]))
            assert row[case] == wanted, (claim["name"], task, case)
            known.append(wanted.partition(":")[0])
    said = page.glued["answer"]
    assert f"Of {len(shown)} verdicts on accuracy " in said
    for case, known in told.items():
        counts = ", ".join(f"{known.count(kind)} {word}" for kind, word in KINDS.items() if kind in known)
        assert f"{sum(v != UNMEASURED for v in known)} are measured on {case} ({counts})" in said
    fixed, tuned = told[FIXED], told[TUNED]
    assert set(fixed) == {UNJUDGED}, "every comparison has a cell that is not shown to learn"
    assert page.glued["given"] == str(sum(v != UNMEASURED for v in fixed))
    assert page.glued["given_tuned"] == str(sum(v != UNMEASURED for v in tuned))
    assert [page.glued[name] for name in ("open_fixed", "open_tuned")] == [
        str(sum(of.count(kind) for kind in (EDGE, OPEN, UNJUDGED))) for of in (fixed, tuned)
    ]
    both = [row for row in shown if UNMEASURED not in (row[FIXED], row[TUNED])]
    assert page.glued["judged"] == str(len(both))
    assert page.glued["changed"] == str(sum(row[FIXED] != row[TUNED] for row in both))
    assert page.glued["rates"] == "4"
    assert page.glued["few"] == "3"


def test_lost_runs_are_apart(page: Any) -> None:
    """They are counts, and none of the verdicts."""
    (shown,) = (table for table in page.tables if table[0][:2] == ["task", FIXED])
    for task, (name, *counts) in zip(TASKS, shown[1:], strict=True):
        assert name == TASKS[task]
        for case, count in zip(CASES, counts, strict=True):
            tried = [
                line
                for line in LINES.get(case, ())
                if (line["config"]["task"], line["label"]) == (task, "cp")
                and (case != TUNED or line["config"]["size"] in TRIED)
            ]
            assert all(line["diverged_at"] is None for line in tried)
            assert count == (f"0 of {len(tried)}" if tried else UNMEASURED)
    assert "No run of CP was lost." in page.glued["answer"]
    assert not [row for row in page.rows("claim", "task", FIXED) if "stably" in row["claim"]]


def test_a_collapsed_baseline_is_no_evidence(page: Any) -> None:
    """LoRA 4 and 8 on MiniLM's BoolQ; at the one rank that learned CP is not ahead."""
    rows = [row for row in page.rows("claim", "task", FIXED) if row["task"] == "BoolQ"]
    assert {row[ENCODER] for row in rows} == {UNMEASURED, f"{UNJUDGED}: LoRA at an unsuitable rate"}
    assert "does not hold" not in {row[case] for row in page.rows("claim", "task", FIXED) for case in CASES}
    constant = {rank: sum(map(one_answer, runs("boolq", ("lora", rank), ENCODER))) for rank in MATCHED[ENCODER]}
    assert constant == {2: 0, 4: 1, 8: 6}
    assert page.glued["gave_up"] == "7"
    assert lies(compared(((("cp", 19), ("lora", 2)),), "boolq", ENCODER)["one-sided"], "cp_not_ahead") == OPEN


def test_minilm_is_not_flat_from_its_first_rank(page: Any) -> None:
    (row,) = (
        row for row in page.rows("claim", "task", FIXED) if row["claim"].startswith("SST-2 has an early plateau")
    )
    assert (row[ENCODER], row[MANY]) == (UNMEASURED, HOLDS)
    further = tuple((("cp", size), ("cp", 9)) for size in (19, 38, 76))
    found = compared(further, "sst2", ENCODER)
    assert page.glued["from_first"] == f"{found['gap']:+.2f}"
    assert page.glued["from_first_ends"] == "{:+.2f} to {:+.2f}".format(*found["one-sided"])
    assert page.glued["to_last"] == f"{compared(further[2:], 'sst2', ENCODER)['gap']:+.2f}"
    assert found["one-sided"][0] > 0, "not flat"
    assert page.glued["missed"] == f"{100 - 100 * 9 * 972 / 9216:.1f}"
    assert float(page.glued["missed"]) > float(page.glued["near"])


def test_sizes_between_the_ranks(page: Any) -> None:
    spent = {(line["label"], line["config"]["size"]): line["counts"]["adapter"] for line in LINES[FIXED]}
    assert [size for label, size in sorted(spent) if label == "cp" and 1.05 < spent["cp", size] / 57600 < 1.95] == [
        15, 19,
    ]  # fmt: skip
    shown = [row for row in page.rows("difference", "alike") if row["difference"].startswith("CP 15 and 19 − ")]
    for below, name, gap, reach in (
        (("lora", 1), "LoRA 1", "between_gap", "between_reach"),
        (("cp", 11), "CP 11", "between_own", "between_own_reach"),
    ):
        each = [
            judged((np.mean([answers(task, ("cp", size), FIXED) for size in (15, 19)], axis=0)
                    - answers(task, below, FIXED)).tolist())
            for task in TASKS
        ]  # fmt: skip
        rows = [row for row in shown if row["difference"].endswith(name)]
        assert [float(row["points"]) for row in rows] == pytest.approx([one["gap"] for one in each], abs=0.0051)
        assert page.glued[gap] == f"{sum(one['gap'] for one in each) / 3:+.1f}"
        assert page.glued[reach] == f"{1.95996 * math.hypot(*(one['error'] for one in each)) / 3:.1f}"
    assert page.glued["between"] == "15 and 19"


def test_what_the_encoder_was_run_with() -> None:
    assert {line["config"]["seed"] for line in LINES[ENCODER]} == set(range(10))
    assert {(line["label"], line["config"]["learning_rate"]) for line in LINES[ENCODER]} == {
        ("head", None), ("lora", 2e-3), ("cp", 4e-3),
    }  # fmt: skip


def test_opt_without_records_is_not_measured(page: Any) -> None:
    assert not list((ROOT / "results").glob("paper/*.jsonl"))
    assert page.glued["answer"].endswith(f"Not measured at all: {OPT}.")
    assert {row[OPT] for row in page.rows("claim", "task", FIXED)} == {UNMEASURED}


def test_what_each_verdict_hangs_on(page: Any) -> None:
    shown = page.rows("wanted")
    names = {name: task for task, name in TASKS.items()}
    rules = {
        (task, rule)
        for claim in LEDGER["claim"]
        for task in claim["tasks"]
        for rule in claim["rules"]
        if claim["name"] != "stable"
    }
    assert len(shown) == sum(given(task, rule, case) for task, rule in rules for case in CASES)
    assert {row["cells"] for row in shown} == {FIXED, TUNED, MANY, ALL, ENCODER}
    for row in shown:
        task, rule = names[row["task"]], row["rule"].replace(" ", "_")
        assert row["verdict"] == verdict(rule, task, row["cells"])
        found = hand(rule, task, row["cells"])
        numbers = re.fullmatch(r"([+-]?[\d.]+), ([+-]?[\d.]+) to ([+-]?[\d.]+)", row["difference, interval"])
        assert numbers
        # A tenth of a point, on either side of a tie.
        assert [*map(float, numbers.groups())] == pytest.approx([found["gap"], *found["one-sided"]], abs=0.05 + 1e-9)
        ends = {"cp_not_ahead": "below +1", "lora_slightly_ahead": "0 to +3"}
        ends |= dict.fromkeys(("flat_from_first_rank", "cp_saturates", "splits_alike"), "-1 to +1")
        assert row["wanted"] == ends.get(rule, "above 0")
        assert bool(row["power"]) == bool(row["seeds"]) == (row["verdict"] == OPEN)
        if row["seeds"] == "more items":
            # Half of the interval, by normal quantiles and the items alone, is wider than the chance asked for allows.
            assert found["items alone"] * (1.645 + 0.842) > 1


def test_the_papers_own_numbers(page: Any) -> None:
    names = {name: task for task, name in TASKS.items()}
    cells = {(f["task"], f["family"], f["size"]): f for f in PUBLISHED["figure"] if "sd" in f}
    shown = page.rows("over both")
    assert len(shown) == sum(family == "cp" for _, family, _ in cells)
    for row in shown:
        task, (_, rank, _, _, size) = names[row["task"]], row["cells"].split()
        lora, cp = cells[task, "lora", int(rank)], cells[task, "cp", int(size)]
        gap = 100 * (lora["accuracy"] - cp["accuracy"])
        of_seeds = 100 * math.sqrt((lora["sd"] ** 2 + cp["sd"] ** 2) / 100)
        assert (row["difference"], row["error, seeds"]) == (f"{gap:+.1f}", f"{of_seeds:.1f}")
        # On as many items as here: the whole of the validation set, or the paper's cap.
        of_items = hand("lora_ahead", task, TUNED)["items alone"]
        assert row["error, items"] == f"{of_items:.1f}"
        assert row["over both"] == f"{gap / math.hypot(of_seeds, of_items):.1f}"
    assert page.glued["paper_seeds"] == "100"
