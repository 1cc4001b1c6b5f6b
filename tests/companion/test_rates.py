"""What the rate moves, on records whose answers are made here."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import answers, corrected, judged, read

from companion import quantities, rates
from cpadapt.analysis.cells import cells_of
from cpadapt.analysis.statistics import estimate, outcomes
from cpadapt.errors import InputError
from cpadapt.records.record import Record, pack_bitmap
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pilot() -> list[Record]:
    """Two rates a family: the paper's, and ten times that."""
    records = load_records(ROOT / "results" / "smollm2-pilot")
    return [record for record in records if record.config.task == "sst2"]


def test_a_response_is_each_cells_mean_at_each_rate(pilot: list[Record]) -> None:
    found = rates.response(pilot)
    assert len(found) == 6 * 2
    assert set(found["times"].round(9)) == {1, 10}
    for row in found.to_dict("records"):
        runs = [
            r for r in pilot
            if (r.label, r.config.size, r.config.learning_rate) == (row["label"], row["size"], row["learning_rate"])
        ]  # fmt: skip
        assert row["runs"] == len(runs) == 3
        assert row["mean"] == pytest.approx(np.mean([r.outcome.accuracy for r in runs if r.outcome]))
        assert row["parameters"] == runs[0].counts.adapter


def test_runs_that_fit_less_than_the_readout_are_counted(pilot: list[Record]) -> None:
    before = rates.response(pilot)["unfit"]
    lost = next(r for r in pilot if (r.label, r.config.size, r.config.learning_rate) == ("cp", 11, 2e-3))
    worse = tuple(dataclasses.replace(e, train_loss=9.0) for e in lost.evaluations)
    found = rates.response([dataclasses.replace(r, evaluations=worse) if r is lost else r for r in pilot])
    (place,) = found[found["unfit"] == before + 1][["label", "size", "times"]].to_numpy().tolist()
    assert place == ["cp", 11, pytest.approx(10)]
    assert found["unfit"].sum() == before.sum() + 1


def test_moves_are_from_the_worst_to_the_best(pilot: list[Record]) -> None:
    found = rates.response(pilot)
    # By size, then by rate: a rate moves the first by 2 and the others by 0, a size both rates by 3 and 5.
    means = {1: (0.3, 0.5), 4: (0.2, 0.2), 11: (0.0, 0.0), 44: (0.1, 0.1)}
    cp = found[found["label"] == "cp"].copy()
    cp["mean"] = [means[size][int(times > 5)] for size, times in zip(cp["size"], cp["times"], strict=True)]
    assert rates.moved(cp) == {"cp": (pytest.approx(0.05), pytest.approx(0.4))}


def test_ways_differ_in_their_rates_alone(pilot: list[Record]) -> None:
    by_way = rates.ways(pilot)
    for (label, size), rate in rates.cell_rates(pilot).items():
        for way, own in ((rates.PAPER, rates.PAPER_RATES[label]), (rates.CHOSEN, rate)):
            at_it = cells_of(pilot, {**rates.PAPER_RATES, label: own})
            assert (by_way[way].outcomes[label, size].right == at_it.outcomes[label, size].right).all()


def test_a_gain_is_that_of_the_matched_sizes(pilot: list[Record]) -> None:
    by_way = rates.ways(pilot)
    before, after = by_way[rates.PAPER], by_way[rates.CHOSEN]
    for label, sizes in (("lora", (1, 4)), ("cp", (11, 44))):
        gains = [after.outcomes[label, s].right.mean() - before.outcomes[label, s].right.mean() for s in sizes]
        assert rates.gain(before, after, label).mean == pytest.approx(np.mean(gains))
    fewer = {place: dataclasses.replace(one, seeds=one.seeds[1:]) for place, one in after.outcomes.items()}
    with pytest.raises(InputError, match="seed by seed"):
        rates.gain(before, dataclasses.replace(after, outcomes=fewer), "cp")


def test_what_is_not_measured_is_refused() -> None:
    with pytest.raises(InputError, match="no record of 'mrpc' in the results of smollm2, smollm2-rates"):
        rates.runs_at_all_rates(("smollm2", "smollm2-rates"), "mrpc")


def test_cells_with_fewer_rates_are_left_out() -> None:
    sizes = {(r.label, r.config.size) for r in rates.runs_at_all_rates(("smollm2", "smollm2-rates"), "rte")}
    assert {size for label, size in sizes if label == "lora"} == {1, 2, 4, 8}
    assert ("head", 0) in sizes


def test_a_run_that_diverged_is_no_reason_to_stop(pilot: list[Record]) -> None:
    def changed(**changes: object) -> list[Record]:
        return [
            dataclasses.replace(r, **changes)
            if (r.label, r.config.size, r.config.learning_rate, r.config.seed) == ("lora", 4, 1e-3, 0)
            else r
            for r in pilot
        ]

    before = rates.response(pilot)
    (late,) = (r.evaluations for r in pilot if (r.label, r.config.size, r.config.learning_rate, r.config.seed)
               == ("lora", 4, 1e-3, 0))  # fmt: skip
    for records in (
        changed(diverged_at=450, evaluations=late[:4], best_step=late[3].step),
        changed(diverged_at=3, evaluations=(), best_step=None, outcome=None),
    ):
        found = rates.response(records)
        lost = found[found["diverged"] > 0]
        assert lost[["label", "size", "times"]].to_numpy().tolist() == [["lora", 4, 10]]
        assert found["unfit"].sum() == before["unfit"].sum() + 1
        assert not lost["chosen"].any(), "a rate at which fewer runs diverged goes first"
    assert lost["mean"].isna().all()


def test_a_response_needs_a_floor_and_adapters(pilot: list[Record]) -> None:
    for some in ([r for r in pilot if r.label != "head"], [r for r in pilot if r.label == "head"]):
        with pytest.raises(InputError, match="runs with an adapter and runs of the head alone"):
            rates.response(some)


def test_one_answer_is_found_by_what_is_right(pilot: list[Record]) -> None:
    assert rates.one_answer(pilot) == set()
    first = pilot[0]
    assert first.outcome is not None
    classes = first.outcome.label
    assert classes is not None

    def answering(name: str, right: np.ndarray) -> Record:
        asked = first.outcome
        said = pack_bitmap(right.nonzero()[0], asked.total)
        outcome = dataclasses.replace(asked, correct=int(right.sum()), right=said, margins=None)
        return dataclasses.replace(first, id=name, outcome=outcome)

    rarer, commoner = (answering(str(one), classes == one) for one in (0, 1))
    nearly = (classes == 1) ^ (np.arange(len(classes)) == 0)
    assert rates.one_answer([first, rarer, commoner, answering("nearly", nearly)]) == {"0", "1"}


@pytest.mark.slow
def test_runs_that_give_one_answer_at_the_highest_rate() -> None:
    """The one that gives the rarer answer among them."""
    found = {task: rates.runs_at_all_rates(("smollm2", "smollm2-rates"), task) for task in ("sst2", "rte", "boolq")}
    responses = {task: rates.response(records) for task, records in found.items()}
    assert {task: table["constant"].sum() for task, table in responses.items()} == {"sst2": 0, "rte": 5, "boolq": 12}
    rows = rates.single_table().to_dict("records")
    untested = [row for row in rows if row["CP − LoRA, points"] == rates.ONE_ANSWER]
    assert [(row["task"], row["LoRA"], row["CP"]) for row in untested] == [("BoolQ", "8", "88")]
    assert {untested[0][name] for name in ("95 % interval", "p", "Holm", "p (equivalence)")} == {"–"}


@pytest.mark.slow
def test_which_items_have_the_commonest_answer() -> None:
    found = {task: rates.runs_at_all_rates(("smollm2", "smollm2-rates"), task) for task in ("sst2", "rte", "boolq")}
    for task, items, commonest in (("rte", 277, 146), ("boolq", 1000, 603)):
        rows = rates.commonest(found[task])
        assert (len(rows), rows.sum()) == (items, commonest), "as the records count the classes"
        constant = [r for r in found[task] if r.id in rates.one_answer(found[task])]
        assert all((outcomes([r]).right[0] == rows).all() for r in constant if r.outcome.correct == commonest)
    with pytest.raises(InputError, match="none of these records has the items' classes"):
        rates.commonest([])


def test_adapters_have_learned_boolq_at_the_papers_rates_if_not_above_the_commonest_answer() -> None:
    records = rates.runs_at_all_rates(("smollm2", "smollm2-rates"), "boolq")
    cells = rates.ways(records)[rates.PAPER]
    right, head = rates.adapters(cells), ("head", 0)
    assert estimate(right - cells.majority).mean < 0
    gain = estimate((right - cells.outcomes[head].right) * cells.class_weights(head))
    assert 0.01 < gain.interval()[0] < gain.mean < 0.04


def test_other_dev_sets_choose_other_rates(pilot: list[Record]) -> None:
    rng = np.random.default_rng(0)
    found = rates.redrawn_gaps(pilot, 300, rng)
    by_way = rates.ways(pilot)[rates.CHOSEN]
    observed = np.mean(
        [
            by_way.outcomes["lora", a].right.mean() - by_way.outcomes["cp", b].right.mean()
            for a, b in by_way.matched("lora", "cp")
        ]
    )
    assert len(np.unique(found)) > 2
    assert np.isclose(found, observed).any()
    # Where dev leaves no doubt, they choose as it does.
    clear = []
    for record in pilot:
        best = record.config.learning_rate in (None, 1e-3, 2e-3)
        scores = [dataclasses.replace(e, dev_correct=e.dev_total * best) for e in record.evaluations]
        clear.append(dataclasses.replace(record, evaluations=tuple(scores)))
    sure = rates.redrawn_gaps(clear, 50, rng)
    higher = cells_of(pilot, {"lora": 1e-3, "cp": 2e-3}).outcomes
    gaps = [higher["lora", a].right.mean() - higher["cp", b].right.mean() for a, b in by_way.matched("lora", "cp")]
    assert sure == pytest.approx(np.full(50, np.mean(gaps)))


def test_a_change_of_the_gap_is_that_of_its_parts(pilot: list[Record]) -> None:
    by_way = rates.ways(pilot)
    before, after = by_way[rates.PAPER], by_way[rates.CHOSEN]
    of_lora, of_cp = (rates.gain(before, after, label).mean for label in ("lora", "cp"))
    assert rates.gap_change(before, after).mean == pytest.approx(of_lora - of_cp)


@pytest.mark.slow
def test_leads_and_gains_on_a_real_table_by_hand() -> None:
    """RTE's, from the records' own lines, at the rates that dev chose by cell."""
    runs: dict[tuple[str, int], dict[float, list[dict[str, Any]]]] = {}
    for line in (line for study in ("smollm2", "smollm2-rates") for line in read(study)):
        if line["config"]["task"] == "rte" and line["label"] != "head":
            cell = runs.setdefault((line["label"], line["config"]["size"]), {})
            cell.setdefault(line["config"]["learning_rate"], []).append(line)

    def on_dev(line: dict[str, Any]) -> float:
        (best,) = (e for e in line["evaluations"] if e["step"] == line["best_step"])
        return best["dev_correct"] / best["dev_total"]

    def right(cell: tuple[str, int], chosen: bool) -> np.ndarray:
        of_cell = runs[cell]
        rate = max(of_cell, key=lambda rate: (round(sum(map(on_dev, of_cell[rate])), 9), -rate) if chosen else -rate)
        by_seed = sorted(of_cell[rate], key=lambda line: line["config"]["seed"])
        return np.array([answers(line["outcome"]) for line in by_seed], dtype=float)

    pairs = [
        (("lora", 1), ("cp", 11)),
        (("lora", 2), ("cp", 22)),
        (("lora", 4), ("cp", 44)),
        (("lora", 8), ("cp", 88)),
    ]
    leads = {chosen: np.mean([right(a, chosen) - right(b, chosen) for a, b in pairs], axis=0) for chosen in (0, 1)}
    gain = np.mean([right(a, True) - right(a, False) for a, _ in pairs], axis=0)
    behind = [right(b, True) - right(a, True) for a, b in pairs]
    sizes = [("cp", size) for size in (1, 4, 8, 11, 22, 44, 88)] + [("lora", size) for size in (1, 2, 4, 8)]
    rises = {
        cell: np.array(
            [
                np.subtract(*(answers(runs[cell][times * papers][seed]["outcome"]) for times in (30, 10)))
                for seed in range(3)
            ]
        )
        for cell in sizes
        for papers in [{"cp": 2e-4, "lora": 1e-4}[cell[0]]]
    }
    small = [("cp", 1), ("cp", 4), ("cp", 8), ("cp", 11), ("lora", 1)]
    by_size = {
        "small": np.mean([rises[cell] for cell in small], axis=0),
        "large": np.mean([rises[cell] for cell in rises.keys() - set(small)], axis=0),
    }
    for name, table in (("lead.rte", leads[1]), ("change.rte", leads[1] - leads[0]),
                        ("at_budget.rte.lora1", behind[0]), ("rise.rte.small", by_size["small"]),
                        ("rise.rte.large", by_size["large"])):  # fmt: skip
        found, by_hand = quantities.value(f"rates.{name}"), judged(table.tolist())
        assert (found.value, found.low, found.high) == pytest.approx((by_hand["gap"], *by_hand["interval"]))
    p_values = corrected([judged(table.tolist())["p"] for table in behind])
    for (_, rank), p in zip([a for a, _ in pairs], p_values, strict=True):
        assert quantities.value(f"rates.at_budget_holm.rte.lora{rank}").value == pytest.approx(p)
    at_ten = [answers(line["outcome"]) for line in runs["cp", 44][2e-3]]
    assert quantities.value("rates.reached.rte.cp44.times10").value == pytest.approx(100 * np.mean(at_ten))
    charted = rates.tuned_rows().query("group == 'RTE'").set_index("what")
    for what, table in (("LoRA, chosen − paper's", gain), ("LoRA − CP, paper's", leads[0])):
        by_hand = judged(table.tolist())
        row = 100 * charted.loc[what, ["mean", "low", "high"]].astype(float)
        assert row.tolist() == pytest.approx([by_hand["gap"], *by_hand["interval"]])
    assert {cell for cell, rise in rises.items() if rise.mean() > 0} == set(small), "up to LoRA's first rank"
    for row in rates.rises(rates.runs_at_all_rates(rates.STUDIES, "rte")).to_dict("records"):
        by_hand = judged(rises[row["label"], row["size"]].tolist())
        assert [100 * row[name] for name in ("mean", "low", "high")] == pytest.approx(
            [by_hand["gap"], *by_hand["interval"]]
        )
