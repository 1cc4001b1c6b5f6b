"""The claims: every verdict and number again, by hand from the records' own lines."""

import base64
import json
import statistics
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from by_hand import judged
from scipy.stats import t

ROOT = Path(__file__).parents[2]
LEDGER = tomllib.loads((ROOT / "book" / "claims.toml").read_text(encoding="utf-8"))
PUBLISHED = tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))
LINES = [
    json.loads(line)
    for file in (ROOT / "results" / "smollm2-pilot").glob("*.jsonl")
    for line in file.read_text(encoding="utf-8").splitlines()
]
TASKS = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
FIXED, TUNED, *REST = "pilot, paper's rates", "pilot, tuned", "SmolLM2, whole study", "OPT-1.3B"
RATES = {"lora": 1e-4, "cp": 2e-4}
# The pilot has two ranks, and 11 and 44 components are the largest at or under them.
MATCHED = [(("cp", 11), ("lora", 1)), (("cp", 44), ("lora", 4))]
CP_OF = {
    "finer_is_not_better": MATCHED,
    "lora_ahead": [(b, a) for a, b in MATCHED],
    "over_floor": [(cp, ("head", 0)) for cp, _ in MATCHED],
    "cp_gains": [(cp, ("cp", 1)) for cp, _ in MATCHED],
    "flat_from_first_rank": [(("cp", 44), ("cp", 11))],
}
HOLDS, FAILS, OPEN, UNMEASURED = "holds", "does not hold", "cannot be told", "not measured"
Chapters = Callable[[str], Any]


@pytest.fixture(scope="module")
def page(chapter: Chapters) -> Any:
    return chapter("claims")


def rows(page: Any, *columns: str) -> list[dict[str, str]]:
    (found,) = (table for table in page.tables if set(columns) <= set(table[0]))
    return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


def on_dev(line: dict[str, Any]) -> int:
    (best,) = (e for e in line["evaluations"] if e["step"] == line["best_step"])
    return int(best["dev_correct"])


def answers(task: str, cell: tuple[str, int], case: str) -> list[list[int]]:
    """By seed and item."""
    by_rate: dict[float | None, list[dict[str, Any]]] = {}
    for line in LINES:
        config = line["config"]
        if (config["task"], line["label"], config["size"]) == (task, *cell):
            by_rate.setdefault(config["learning_rate"], []).append(line)
    tuned = max(by_rate, key=lambda rate: sum(map(on_dev, by_rate[rate])))
    runs = by_rate[RATES.get(cell[0]) if case == FIXED else tuned]
    found = []
    for line in sorted(runs, key=lambda line: line["config"]["seed"]):
        drawn, right = (base64.b64decode(line["outcome"][name]) for name in ("drawn", "right"))
        places = [k for k in range(line["outcome"]["rows"]) if drawn[k // 8] >> (7 - k % 8) & 1]
        found.append([right[k // 8] >> (7 - k % 8) & 1 for k in places])
    return found


def hand(rule: str, task: str, case: str) -> dict[str, Any]:
    tables = [(answers(task, a, case), answers(task, b, case)) for a, b in CP_OF[rule]]
    seeds, items = len(tables[0][0]), len(tables[0][0][0])
    return judged(
        [[statistics.mean(a[s][k] - b[s][k] for a, b in tables) for k in range(items)] for s in range(seeds)]
    )


def verdict(rule: str, task: str, case: str) -> str:
    """At a margin of one point and at 5 %."""
    if rule in ("trains_stably", "fills_gaps"):
        assert all(line["diverged_at"] is None for line in LINES)
        return HOLDS  # 15 components lie between the two ranks, and 44 too
    found = hand(rule, task, case)
    low, high = found["interval"]
    reach = float(t.ppf(0.95, found["degrees"])) * found["error"]
    least, most = found["gap"] - reach, found["gap"] + reach
    if rule in ("finer_is_not_better", "flat_from_first_rank"):
        return HOLDS if most < 1 else FAILS if least > 1 else OPEN
    slight = least > -1 and most < 1
    return HOLDS if low > 0 else FAILS if high < 0 or slight else OPEN


def test_counts(page: Any) -> None:
    shown = rows(page, "the paper's")
    by_hand = [f"{32 + 64 + 32 + 64 + 1} scalars", "4,096 scalars", f"{48 * 193 * 8 / 2**20:.3f} MiB"]
    by_hand.append(f"{48 * 4096 * 8 / 2**20:.3f} MiB")
    assert [row["ours"] for row in shown] == by_hand
    assert [row["the paper's"] for row in shown] == by_hand
    assert {row["verdict"] for row in shown} == {HOLDS}


def test_verdicts(page: Any) -> None:
    shown = rows(page, "claim", "task", FIXED)
    expected = [(claim, task) for claim in LEDGER["claim"] for task in claim["tasks"]]
    counts: dict[str, list[str]] = {FIXED: [], TUNED: []}
    for row, (claim, task) in zip(shown, expected, strict=True):
        assert row["claim"] == claim["says"] + {"abstract": "", "second-hand": " (second-hand)"}[claim["source"]]
        assert row["task"] == TASKS[task]
        for case in (FIXED, TUNED):
            if task == "boolq" or claim["rules"] == ["splits_alike"]:
                wanted = UNMEASURED
            else:
                each = {verdict(rule, task, case) for rule in claim["rules"]}
                wanted = next((v for v in (FAILS, OPEN) if v in each), HOLDS)
            assert row[case] == wanted, (claim["name"], task, case)
            counts[case].append(wanted)
        assert [row[case] for case in REST] == [UNMEASURED] * 2
    said = page.glued["answer_pilot"]
    judged_here = sum(found != UNMEASURED for found in counts[FIXED])
    assert said.startswith(f"Of {len(shown)} claims, task by task, SmolLM2's pilot has the cells for {judged_here}:")
    for case, phrase in ((FIXED, "at the paper's rates {}; "), (TUNED, "at the rates that dev chose {}.")):
        kinds = [counts[case].count(kind) for kind in (HOLDS, FAILS, OPEN)]
        assert phrase.format("{} hold, {} do not, {} cannot be told".format(*kinds)) in said
    assert page.glued["answer_rest"] == "Not measured at all yet: SmolLM2, whole study; OPT-1.3B."


def test_what_each_verdict_hangs_on(page: Any) -> None:
    shown = rows(page, "difference, interval")
    names = {name: task for task, name in TASKS.items()}
    assert len(shown) >= 8
    for row in shown:
        task, rule = names[row["task"]], row["rule"].replace(" ", "_")
        found = hand(rule, task, row["cells"])
        assert row["difference, interval"] == "{:+.1f}, {:+.1f} to {:+.1f}".format(found["gap"], *found["interval"])
        assert row["seeds, items"] == f"3, {found['items']}"
        assert row["verdict"] == verdict(rule, task, row["cells"])
        power = float(row["power"].removesuffix(" %"))
        # Where a point is several errors there is power, and where it is less than one there is not.
        assert (power > 50) == (1 / found["error"] > 2.4) or 40 < power < 60


def test_the_rate_is_in_every_verdict(page: Any) -> None:
    for name, case in (("sst2_fixed", FIXED), ("sst2_tuned", TUNED)):
        assert page.glued[name] == f"{hand('finer_is_not_better', 'sst2', case)['gap']:+.1f}"
    # LoRA's lead is there at the first and slight at best at the second.
    assert hand("lora_ahead", "sst2", FIXED)["interval"][0] > 0
    assert verdict("lora_ahead", "sst2", TUNED) == FAILS


def test_the_papers_own_numbers(page: Any) -> None:
    for row, task in zip(rows(page, "by chance"), TASKS, strict=True):
        at = {
            (f["family"], f["size"]): f["accuracy"]
            for f in PUBLISHED["figure"]
            if f["task"] == task and f["seeds"] == 3
        }
        gap = 100 * statistics.mean(at["lora", r] - at["cp", c] for r, c in ((2, 43), (4, 85), (8, 171)))
        assert row["LoRA − CP"] == f"{gap:+.1f}"
        if task == "boolq":
            assert (row["items"], row["error"]) == ("1000", UNMEASURED)
            continue
        found = hand("lora_ahead", task, TUNED)
        # As many seeds and items as the pilot has.
        assert row["items"] == str(found["items"])
        assert float(row["error"]) == pytest.approx(found["error"], abs=0.11)
        p_value = 2 * float(t.sf(abs(gap) / found["error"], found["degrees"]))
        assert float(row["by chance"]) == pytest.approx(p_value, abs=0.03)
