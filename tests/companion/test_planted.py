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
    shown = planted.reach_table().set_index("planted")
    assert shown.shape == (9, 3)
    assert shown.loc["CP 1"].tolist() == ["–", "CP 44, 80.5 %", "MELoRA 16, 80.4 %"]
    assert shown.loc["MELoRA 4"].tolist() == ["–", "–", "MELoRA 4, 80.4 %"]
    assert set(shown.drop(["CP 1", "MELoRA 4"]).to_numpy().ravel()) == {"–"}
    # The map shows a rounded 80 where less is removed.
    means = [over(draws)[0] for key, draws in shares.items() if key[0] == "sst2"]
    assert [round(mean) for mean in means if 79.5 <= mean < 80] == [80, 80, 80]


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
    assert said("texts_open") == sum(low <= 0 <= high for _, low, high in gaps.values()) == 52
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
    assert said("drawn") == 36


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
        ahead = [fmean(found["train", 2000][draw]) - fmean(found["dev", 2000][draw]) for draw in (1, 2, 3, 4)]
        assert interval(f"train_ahead.{text}") == pytest.approx(over(ahead))
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
    assert (said("runs"), said("teachers"), said("students"), said("draws"), said("steps")) == (720, 9, 10, 4, 2000)
    assert (said("batch"), said("norm")) == (8, pytest.approx(30))


def test_whose_setting_each_student_has() -> None:
    """From the runs themselves, and from the rates and scales that were tried for each cell."""
    tried: dict[tuple[str, int], set[tuple[float, float]]] = {}
    for line in read("planted-rates"):
        config = line["config"]
        if line["label"] != "head":
            cell = line["label"], config["size"]
            tried.setdefault(cell, set()).add((config["learning_rate"], config["scale"]))
    had = {
        (line["label"], line["config"]["size"]): (line["config"]["learning_rate"], line["config"]["scale"])
        for line in read("planted")
        if line["label"] != "head"
    }
    assert said("taken_over") == len(had.keys() - tried.keys()) == 5
    assert {("cp", 4), ("cp", 16), ("melora", 4)} < had.keys() - tried.keys()
    # What any of a family's sizes was tried at, which is the same for all; MELoRA's are LoRA's.
    least = {label: [min(part) for part in zip(*tried[label, 1], strict=True)] for label in ("cp", "lora")}
    lowest = {cell: least[cell[0].removeprefix("me")] for cell in had}
    assert all(tried[cell] == tried[cell[0], 1] for cell in tried)
    edge = {cell for cell, (rate, _) in had.items() if rate == lowest[cell][0]}
    assert edge == {cell for cell in had if cell[0] != "cp"} | {("cp", 44)}
    assert said("at_lowest.rate") == len(edge) == 6
    assert said("at_lowest.scale") == sum(scale == lowest[cell][1] for cell, (_, scale) in had.items()) == 10
    shown = planted.settings_table().set_index("student")
    assert shown.loc["CP 16"].tolist() == ["0.02", "8", "CP 11", "", "yes"]
    assert shown.loc["MELoRA 4"].tolist() == ["0.003", "2", "LoRA 1", "yes", "yes"]
    assert len(shown) == 10


def on_dev(study: str) -> dict[tuple[str, int, tuple[str, int], float, float], dict[int, float]]:
    """What runs on SST-2 removed on dev, in percent, by student, update, rate and scale, and by draw."""
    lines = [line for line in read(study) if line["config"]["task"] == "sst2"]
    before = {
        (planted_in(line), line["config"]["data_seed"]): line["dev"] for line in lines if line["label"] == "head"
    }
    found: dict[tuple[str, int, tuple[str, int], float, float], dict[int, float]] = {}
    for line in lines:
        if line["label"] != "head":
            assert line["diverged_at"] is None
            config = line["config"]
            start = before[planted_in(line), config["data_seed"]]
            assert start["drawn"] == line["dev"]["drawn"]
            key = line["label"], config["size"], planted_in(line)[:2], config["learning_rate"], config["scale"]
            found.setdefault(key, {})[config["data_seed"]] = (
                100 - 100 * line["dev"]["divergence"] / start["divergence"]
            )
    return found


def test_longer_training_on_dev() -> None:
    """Chosen by hand, beside the first study of rates at what it chose, on the same teachers and dev texts."""
    longer, first = on_dev("planted-longer-rates"), on_dev("planted-rates")
    updates = ("cp", 4), ("lora", 4)
    assert (len(longer), {len(draws) for draws in longer.values()}) == (5 * 2 * 4, {2})
    assert said("longer_runs") == 80
    assert said("longer_draws") == 2
    rates: dict[tuple[str, int], float] = {}
    for label, size in {key[:2] for key in longer}:
        tried = sorted({key[3] for key in longer if key[:2] == (label, size)})
        scale = {"cp": 8.0, "lora": 2.0}[label]
        means = [
            fmean(fmean(longer[label, size, update, rate, scale].values()) for update in updates) for rate in tried
        ]
        rates[label, size] = tried[means.index(max(means))]
        assert tried.index(rates[label, size]) in (1, 2), "none is at an edge"
    assert said("longer_at_edge") == 0
    assert quantities.value("planted.longer_at_edge").n == len(rates) == 5
    itself = {
        label: longer[label, 4, (label, 4), rates[label, 4], scale] for label, scale in (("cp", 8.0), ("lora", 2.0))
    }
    for label, draws in itself.items():
        assert said(f"longer.{label}") == pytest.approx(fmean(draws.values()))
        assert fmean(draws.values()) < 90
    assert said("longer_by_draw.cp.least") == pytest.approx(min(itself["cp"].values()))
    assert said("longer_by_draw.cp.most") == pytest.approx(max(itself["cp"].values()))
    assert said("longer_most") == pytest.approx(max(fmean(draws.values()) for draws in longer.values()))
    assert said("at_former_rate") == pytest.approx(fmean(longer["lora", 4, ("lora", 4), 3e-3, 2.0].values()))
    # The first study's choices are those of planted.toml, which tests/test_planted.py chooses by hand.
    before = {("cp", 1): (2e-2, 8.0), ("lora", 1): (3e-3, 2.0), ("lora", 4): (3e-3, 2.0)}
    pairs = [
        (one, longer[*cell, update, rates[cell], setting[1]][draw])
        for cell, setting in before.items()
        for update in updates
        for draw, one in first[*cell, update, *setting].items()
    ]
    assert said("longer_higher") == sum(after > one for one, after in pairs) == 11
    assert quantities.value("planted.longer_higher").n == len(pairs) == 12
    shown = planted.longer()
    assert sorted(100 * shown["before"].dropna()) == pytest.approx(sorted(one for one, _ in pairs))
    assert len(shown) == 20
    # What the comparison rests on.
    starts = [
        {
            (line["config"]["teacher"]["family"], line["config"]["data_seed"]): line["dev"]
            for line in read(study)
            if line["label"] == "head" and line["config"]["task"] == "sst2" and planted_in(line)[0] != "dense"
        }
        for study in ("planted-rates", "planted-longer-rates")
    ]
    assert starts[0] == starts[1]
    assert len(starts[0]) == 4
    protocols = [read(study)[0]["config"]["protocol"] for study in ("planted", "planted-longer-rates")]
    assert [protocol["train_cap"] for protocol in protocols] == [8000, 4 * 8000]
    assert [protocol["steps"] * protocol["batch_size"] for protocol in protocols] == [16000, 8 * 16000]
    assert (said("more.texts"), said("more.examples")) == (4, 8)


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
    *_, lines, runs, means = planted.longer_chart().to_dict()["layer"]
    data = planted.longer_chart().to_dict()["datasets"]
    assert [len(data[layer["data"]["name"]]) for layer in (lines, runs, means)] == [12, 32, 10]
