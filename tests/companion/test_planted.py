"""Planted updates: the page's numbers by hand, from the records' own lines, in loops over plain lists."""

import math
from statistics import fmean, stdev
from typing import Any

import pytest
from by_hand import read
from scipy.stats import t

from companion import planted, quantities

pytestmark = pytest.mark.slow  # the book's numbers, which whoever asks first computes

TEXTS = {"sst2": "sst2", "generated": "toy-sentiment"}
KINDS = {("cp", 1), ("cp", 4), ("cp", 16), ("lora", 1), ("lora", 4), ("melora", 4)}
Key = tuple[str, tuple[str, int, float], str, int]
"""A text, what is planted (family, size, decay), and a student's label and size."""


def planted_in(line: dict[str, Any]) -> tuple[str, int, float]:
    teacher = line["config"]["teacher"]
    assert (teacher["norm"], teacher["minis"]) == (0.3, 4 if teacher["family"] == "melora" else 1)
    return teacher["family"], teacher["size"], teacher["decay"]


def starts() -> dict[tuple[str, tuple[str, int, float], int], dict[str, Any]]:
    """The runs without an adapter, by text, what is planted, and draw."""
    return {
        (line["config"]["task"], planted_in(line), line["config"]["data_seed"]): line
        for line in read("planted")
        if line["label"] == "head"
    }


@pytest.fixture(scope="module")
def shares() -> dict[Key, dict[int, float]]:
    """What each run removed on the unseen texts, by draw."""
    before, found = starts(), {}
    for line in read("planted"):
        config = line["config"]
        assert line["diverged_at"] is None
        if line["label"] != "head":
            start = before[config["task"], planted_in(line), config["data_seed"]]
            assert start["outcome"]["drawn"] == line["outcome"]["drawn"]
            key = config["task"], planted_in(line), line["label"], config["size"]
            removed = 1 - line["outcome"]["divergence"] / start["outcome"]["divergence"]
            assert found.setdefault(key, {}).setdefault(config["data_seed"], removed) == removed
    assert {tuple(sorted(draws)) for draws in found.values()} == {(1, 2, 3, 4)}
    assert len(found) == 2 * 9 * 10
    return found


def over(draws: dict[int, float] | list[float]) -> tuple[float, float, float]:
    """A mean of four draws and the ends of its 95 % interval by Student's t, in percent."""
    values = [100 * one for one in (draws.values() if isinstance(draws, dict) else draws)]
    reach = float(t.ppf(0.975, 3)) * stdev(values) / math.sqrt(4)
    assert len(values) == 4
    return fmean(values), fmean(values) - reach, fmean(values) + reach


def said(name: str) -> float:
    value = quantities.value(f"planted.{name}").value
    assert not isinstance(value, str)
    return value


def interval(name: str) -> tuple[float | str, float | None, float | None]:
    known = quantities.value(f"planted.{name}")
    return known.value, known.low, known.high


def test_no_student_finds_its_kind(shares: dict[Key, dict[int, float]]) -> None:
    for text, task in TEXTS.items():
        same = [over(shares[task, (*kind, 0.0), *kind]) for kind in KINDS]
        means = [mean for mean, *_ in same]
        assert max(over(draws)[0] for key, draws in shares.items() if key[0] == task) < 95
        assert said(f"itself_found.{text}") == said(f"found.{text}") == 0
        assert quantities.value(f"planted.found.{text}").n == 90
        assert said(f"itself_range.{text}.least") == pytest.approx(min(means))
        assert said(f"itself_range.{text}.most") == pytest.approx(max(means))
        table = planted.itself(text)
        assert sorted(100 * table["mean"]) == pytest.approx(sorted(means))
        if text == "sst2":
            assert said("itself_open.sst2") == sum(low <= 95 <= high for _, low, high in same) == 4
    for cell, name in ((("cp", 1), "one_for_sixteen"), (("cp", 16), "sixteen_for_sixteen")):
        by_hand = over(shares["sst2", ("cp", 16, 0.0), *cell])
        assert interval(f"{name}.sst2") == pytest.approx(by_hand)
    assert over(shares["sst2", ("cp", 16, 0.0), "cp", 1])[2] < 95, "as it must: one component does not find sixteen"


def test_who_reaches_four_fifths(shares: dict[Key, dict[int, float]]) -> None:
    sizes = {"lora": [1, 2, 4], "cp": [1, 4, 11, 16, 44], "melora": [4, 16]}
    for text, task in TEXTS.items():
        smallest = {}
        for kind in {key[1] for key in shares}:
            for label, tried in sizes.items():
                near = [size for size in tried if over(shares[task, kind, label, size])[0] >= 80]
                if near:
                    smallest[kind, label] = near[0]
        assert said(f"nearly.{text}") == len(smallest)
        if text == "sst2":
            one, blocks = ("cp", 1, 0.0), ("melora", 4, 0.0)
            assert smallest == {(one, "cp"): 44, (one, "melora"): 16, (blocks, "melora"): 4}
        else:
            assert said("nearly_smallest.generated") == 27
            assert all(size == sizes[label][0] for (_, label), size in smallest.items())
    shown = planted.reach_table().set_index(["text", "planted"])
    assert shown.loc[("SST-2", "CP 1")].tolist() == ["–", "CP 44, 229,680", "MELoRA 16, 230,400"]
    assert shown.loc[("generated text", "dense")].tolist() == ["LoRA 1, 57,600", "CP 1, 5,220", "MELoRA 4, 57,600"]


def test_where_the_finer_step_leads(shares: dict[Key, dict[int, float]]) -> None:
    leads = {}
    for task, kind in {key[:2] for key in shares}:
        for components, rank in ((11, 1), (44, 4)):
            cp, lora = shares[task, kind, "cp", components], shares[task, kind, "lora", rank]
            mean, low, high = over([cp[draw] - lora[draw] for draw in (1, 2, 3, 4)])
            leads[task, kind, rank] = (low > 0 or high < 0) and abs(mean) >= 1
    assert said("differences") == len(leads) == 36
    assert [place for place, leads_there in leads.items() if leads_there] == [("sst2", ("lora", 4, 0.0), 1)]
    assert said("leading") == 1
    assert said("by_chance") == pytest.approx(1.8)
    shown = planted.lead_table()
    assert len(shown) == 36
    (row,) = shown[shown["leads"] == "yes"].to_dict("records")
    assert list(row.values()) == ["SST-2", "LoRA 4", "CP 11 − LoRA 1", "+1.1 (+0.2 to +2.0)", "yes"]


def test_below_the_first_rank_and_the_update_that_none_can_express(shares: dict[Key, dict[int, float]]) -> None:
    for name, size in (("one", 1), ("four", 4)):
        means = [over(draws)[0] for key, draws in shares.items() if (key[0], *key[2:]) == ("sst2", "cp", size)]
        assert len(means) == 9
        assert said(f"below_rank.{name}.sst2.least") == pytest.approx(min(means))
        assert said(f"below_rank.{name}.sst2.most") == pytest.approx(max(means))
    dense = [over(draws)[0] for key, draws in shares.items() if key[:2] == ("sst2", ("dense", 0, 0.0))]
    assert said("dense_range.sst2.least") == pytest.approx(min(dense))
    assert said("dense_range.sst2.most") == pytest.approx(max(dense))


def test_generated_text_minus_the_other(shares: dict[Key, dict[int, float]]) -> None:
    gaps = {
        key[1:]: over([shares["toy-sentiment", *key[1:]][draw] - one for draw, one in draws.items()])
        for key, draws in shares.items()
        if key[0] == "sst2"
    }
    means = [mean for mean, *_ in gaps.values()]
    assert said("higher_on_generated") == sum(mean > 0 for mean in means) == 90
    assert (said("texts_apart.least"), said("texts_apart.most")) == pytest.approx((min(means), max(means)))
    mean, low, high = gaps[("lora", 1, 0.0), "cp", 1]
    shown = planted.text_table().set_index("student")
    assert shown.loc["CP 1", "LoRA 1"] == f"+{mean:.0f} (+{low:.0f} to +{high:.0f})"
    assert shown.shape == (10, 9)
    for task in TEXTS.values():
        best = max(max(draws.values()) for key, draws in shares.items() if key[0] == task)
        text = {"sst2": "sst2", "toy-sentiment": "generated"}[task]
        assert said(f"best_run.{text}") == pytest.approx(100 * best)


def test_teachers_differ_more_than_students(shares: dict[Key, dict[int, float]]) -> None:
    here = {key[1:]: draws for key, draws in shares.items() if key[0] == "sst2"}
    kinds, students = {key[0] for key in here}, {key[1:] for key in here}
    by_teacher = [100 * fmean(here[kind, *one][draw] for one in students) for kind in kinds for draw in (1, 2, 3, 4)]
    by_student = [fmean(over(here[kind, *one])[0] for kind in kinds) for one in students]
    for name, means in (("teacher", by_teacher), ("student", by_student)):
        assert said(f"{name}_range.sst2.least") == pytest.approx(min(means))
        assert said(f"{name}_range.sst2.most") == pytest.approx(max(means))
    assert (len(by_teacher), len(by_student)) == (36, 10)


def test_what_was_removed_along_the_way() -> None:
    """On dev from the divergence itself where a run was judged, and from what a run without an adapter lost."""
    before = starts()
    for text, task in TEXTS.items():
        found: dict[tuple[str, int], dict[int, list[float]]] = {}
        last, runs = 0, 0
        for line in read("planted"):
            config = line["config"]
            if line["label"] == "head" or config["task"] != task:
                continue
            start = before[task, planted_in(line), config["data_seed"]]
            divergence = start["dev"]["divergence"]
            # What a loss has beside the divergence is the teacher's entropy, the same for both runs.
            entropy = start["evaluations"][0]["dev_loss"] - divergence
            (judged,) = (at for at in line["evaluations"] if at["step"] == line["best_step"])
            assert judged["dev_loss"] - line["dev"]["divergence"] == pytest.approx(entropy, abs=1e-6)
            assert judged["dev_loss"] == min(at["dev_loss"] for at in line["evaluations"])
            runs, last = runs + 1, last + (line["best_step"] == 2000)
            for at, without in zip(line["evaluations"], start["evaluations"], strict=True):
                dev = 1 - (at["dev_loss"] - entropy) / divergence
                train = (without["train_loss"] - at["train_loss"]) / divergence
                for part, share in (("dev", dev), ("train", train)):
                    found.setdefault((part, at["step"]), {}).setdefault(config["data_seed"], []).append(share)
        means = {place: over([fmean(draws[draw]) for draw in (1, 2, 3, 4)]) for place, draws in found.items()}
        assert interval(f"on_dev.{text}.halfway") == pytest.approx(means["dev", 1000])
        assert interval(f"on_dev.{text}.last") == pytest.approx(means["dev", 2000])
        assert interval(f"on_train.{text}") == pytest.approx(means["train", 2000])
        assert (said(f"judged_last.{text}"), runs) == (pytest.approx(100 * last / runs), 360)
    assert planted.course_table().shape == (2, 5)


def test_what_the_trial_of_rates_found() -> None:
    lines = [line for line in read("planted-rates") if line["config"]["task"] == "sst2"]
    lines = [line for line in lines if planted_in(line) == ("lora", 4, 0.0)]
    before = {line["config"]["data_seed"]: line["dev"]["divergence"] for line in lines if line["label"] == "head"}
    chosen = [
        1 - line["dev"]["divergence"] / before[line["config"]["data_seed"]]
        for line in lines
        if (line["label"], line["config"]["size"]) == ("lora", 4)
        and (line["config"]["learning_rate"], line["config"]["scale"]) == (3e-3, 2.0)
    ]
    assert len(chosen) == 2
    assert said("trial") == pytest.approx(100 * fmean(chosen))
    assert said("at_edge") == 2
    assert (said("runs"), said("teachers"), said("students"), said("draws"), said("steps")) == (720, 9, 10, 4, 2000)


def test_the_charts_have_every_teacher_and_student() -> None:
    for text in TEXTS:
        assert len(planted.on_text(text)) == 90
        spec = planted.itself_chart(text).to_dict()
        *_, ticks, rules, points = spec["layer"]
        rows = {name: spec["datasets"][layer["data"]["name"]] for name, layer in
                (("others", ticks), ("same", rules), ("dots", points))}  # fmt: skip
        assert len(rows["others"]) == 84
        assert rows["same"] == rows["dots"]
        assert {(row["teacher"], row["student"]) for row in rows["dots"]} == {
            (name, name) for name in ("CP 1", "CP 4", "CP 16", "LoRA 1", "LoRA 4", "MELoRA 4")
        }
        assert planted.map_chart(text).to_dict()["title"].endswith("no field reaches 95 %")
        assert planted.map_table(text).shape == (10, 11)
