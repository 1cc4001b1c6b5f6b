"""Every family goes everywhere that LoRA and CP go, also one that only its file and its line in `FAMILIES` know.

In a bank, against itself alone and a slow loop: tests/bank/test_trainer.py. Its counts: tests/families.
"""

import json
import re
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import toy_family
from command_line import PROTOCOL, printed
from peft import LoKrConfig, LoraConfig, PeftConfig, PeftModel

from cpadapt import load_backbone, load_records, save_adapter, tabulate
from cpadapt.analysis import charts
from cpadapt.analysis.frontier import frontier
from cpadapt.cli import main
from cpadapt.families import FAMILIES

ROOT = Path(__file__).parents[1]
STUDY = """
name = "third"
backbone = "tiny-encoder"
tasks = ["toy-sentiment"]
seeds = [0, 1]
[ladder]
head = true
budgets = [300]
{families}
[families.toy]
options = {{ blocks = 4 }}
{protocol}""".format(families="\n".join(f"[families.{name}]" for name in FAMILIES), protocol=PROTOCOL)


@pytest.fixture(autouse=True)
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "toy", toy_family)


def test_steps_and_plan_say_where_it_fits_and_why_not_where_it_does_not() -> None:
    assert json.loads(printed("steps", 576, 576, "--json"))[-1] == {"family": "toy", "step": 1152}
    lora, cp, *_, toy = json.loads(printed("steps", 192, 576, "--json"))
    assert (lora["step"], cp["step"]) == (768, 77)
    assert toy == {"family": "toy", "step": None, "not applicable": "192x576: it is not square"}
    shown = printed("steps", 192, 576).splitlines()
    assert any(re.search(r"cp +77 +12 \+ 16 \+ 24 \+ 24 \+ 1", line) for line in shown)
    assert any(re.search(r"toy +192x576: it is not square", line) for line in shown)

    # 12 projections of 384×384.
    *_, toy = json.loads(printed("plan", "--backbone", "minilm", "--budget", 20_000, "--json"))["offers"]
    assert (toy["size"], toy["parameters"], toy["unspent"]) == (2, 2 * 12 * 768, 20_000 - 2 * 12 * 768)
    lora, cp, *_, toy = json.loads(printed("plan", "--backbone", "smollm2", "--budget", 57_600, "--json"))["offers"]
    assert (lora["size"], cp["size"]) == (1, 11)
    assert toy["not applicable"] == "192x576: it is not square"
    assert {value for key, value in toy.items() if key not in ("family", "not applicable")} == {None}
    assert "it is not square" in " ".join(printed("plan", "--backbone", "smollm2", "--budget", 57_600).split())


@pytest.mark.slow
def test_a_study_is_trained_known_as_done_tabulated_and_drawn(tmp_path: Path) -> None:
    file = tmp_path / "third.toml"
    file.write_text(STUDY)
    printed("run", file, "--results", tmp_path / "r", "--save", tmp_path / "w", "--quiet")
    rows = json.loads(printed("status", file, "--results", tmp_path / "r", "--json"))
    assert {(row["label"], row["done"], row["missing"]) for row in rows} == {
        (label, 2, 0) for label in ("head", *FAMILIES)
    }
    records = load_records(tmp_path / "r")
    # 4 projections of 32×32, for 300 scalars.
    assert {record.label: (record.config.size, record.counts.adapter) for record in records}.items() >= {
        "head": (0, 0), "lora": (1, 256), "cp": (3, 300), "melora": (2, 256), "symlora": (2, 264), "lokr": (1, 96),
        "toy": (1, 256),
    }.items()  # fmt: skip
    toys = [record for record in records if record.label == "toy"]
    assert {(r.config.size, r.counts.adapter, r.counts.step) for r in toys} == {(1, 256, 256)}
    assert {(r.config.learning_rate, r.config.scale) for r in toys} == {(3e-4, 1.5)}
    assert toys[0].config.options == {"blocks": 4, "spread": 1.0, "down_decay": 0.0}

    table, _ = tabulate(records)
    assert set(frontier(table)["label"]) == {"head", *FAMILIES}
    spec = charts.frontier_chart(table).to_dict()
    scales = [layer["encoding"]["color"]["scale"] for layer in spec["layer"] if "color" in layer["encoding"]]
    assert {tuple(zip(scale["domain"], scale["range"], strict=True)) for scale in scales} == {
        (("head only", "#777777"), *((family.TITLE, family.COLOUR) for family in FAMILIES.values()))
    }
    assert "Blocks 1" in spec["description"]

    # What was saved is the equal LoRA adapter, with a rank for each column, but for a family that PEFT has.
    for label, kind, rank in (
        ("toy", LoraConfig, 4), ("melora", LoraConfig, 2), ("symlora", LoraConfig, 2), ("lokr", LoKrConfig, 1),
    ):  # fmt: skip
        run = next(record for record in records if record.label == label)
        config = PeftConfig.from_pretrained(tmp_path / "w" / run.id)
        assert (type(config), config.r) == (kind, rank)


def test_it_is_exported_as_plain_lora_without_loss(tmp_path: Path) -> None:
    backbone, scale = load_backbone("tiny-encoder"), 1.5
    source = torch.Generator().manual_seed(0)
    params = {
        p.name: {
            name: torch.randn(shape, generator=source)
            for name, shape in toy_family.shapes(p.out_features, p.in_features, 3, blocks=4).items()
        }
        for p in backbone.projections
    }
    save_adapter(tmp_path, "toy", scale, params, shape_options={"blocks": 4})
    loaded = PeftModel.from_pretrained(load_backbone("tiny-encoder").model, tmp_path)
    assert loaded.peft_config["default"].r == 12
    for name, tensors in params.items():
        projection = backbone.model.get_submodule(name)
        cut = [torch.stack(tensors[side].split(8, 1)) for side in ("up", "down")]  # [block, size, part]
        delta = torch.block_diag(*(up.T @ down for up, down in zip(*cut, strict=True)))
        projection.weight.data += scale * delta
    tokens = torch.arange(5, 25)[None]
    expected = backbone.model(tokens).last_hidden_state
    torch.testing.assert_close(loaded(tokens).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
    with loaded.disable_adapter():
        assert (loaded(tokens).last_hidden_state - expected).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["toy", "symlora"])
@pytest.mark.parametrize("ladder", ["budgets = [300]", "sizes = {{ {} = [1] }}"])
def test_a_study_that_asks_for_it_where_it_does_not_fit_ends_before_training(
    name: str, ladder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cpadapt.bank.trainer.Trainer.train", lambda self: pytest.fail("training began"))
    text = STUDY.replace('"tiny-encoder"', '"tiny"').replace("budgets = [300]", ladder.format(name))
    for other, module in FAMILIES.items():
        if other not in (name, "toy") and module.accepts(16, 32):
            text = text.replace(f"[families.{other}]\n", "")
    (tmp_path / "third.toml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["cpadapt", "run", str(tmp_path / "third.toml"), "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr().err
    assert (exit_.value.code, said.count("\n")) == (2, 1)
    assert f"family {name!r} cannot adapt a projection of 16x32: it is not square" in said


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    """The tables that a page shows."""
    shown: list[pd.DataFrame] = []
    monkeypatch.setattr(charts, "table", shown.append)
    monkeypatch.setattr(charts, "enable", lambda: None)
    return shown


def executed(text: str, folder: Path) -> None:
    file = folder / "page.py"
    file.write_text(text, encoding="utf-8")
    runpy.run_path(str(file), {"In": []})  # the inputs that IPython keeps


def test_the_protocols_page_shows_it(tables: list[pd.DataFrame], tmp_path: Path) -> None:
    executed((ROOT / "notebooks" / "protocol.py").read_text(encoding="utf-8"), tmp_path)
    (families,) = (table for table in tables if "family" in table.columns)
    rows = families.set_index("family").to_dict("index")
    assert list(rows) == [family.TITLE for family in FAMILIES.values()]
    assert rows["Blocks"]["learning rate (paper's)"] == "3e-4 (ours)"
    assert [rows[name]["learning rate (paper's)"] for name in ("LoRA", "CP")] == ["1e-4", "2e-4"]
    assert rows["Blocks"]["options (ours)"] == "blocks = 2, spread = 1.0, down_decay = 0.0"


def test_the_page_of_one_budget_says_why_it_does_not_fit(tables: list[pd.DataFrame], tmp_path: Path) -> None:
    page = (ROOT / "notebooks" / "run_budget.py").read_text(encoding="utf-8")
    # What comes before training, and the offers below its outcome.
    text, _, trained = page.partition("# What is on record is not trained again")
    offers, *_ = trained.partition("# ## What fits into the budget\n")[2].partition("# %% [markdown]")
    text += offers
    assert 'backbone: str = "minilm"' in text
    executed(text.replace('backbone: str = "minilm"', 'backbone: str = "tiny"'), tmp_path)
    offered = tables[-1].set_index("family").to_dict("index")
    assert offered["toy"]["not applicable"] == "16x32: it is not square"
    assert offered["toy"]["size"] == offered["lora"]["not applicable"] == ""
    assert offered["lora"]["size"] == 1


def test_the_charts_theme_has_its_colour() -> None:
    colours = charts.theme()["config"]["range"]["category"]
    assert colours[: len(FAMILIES)] == [family.COLOUR for family in FAMILIES.values()]
