"""The notebooks run as papermill runs them, and refuse parameters that they do not have."""

import ast
from pathlib import Path
from typing import Any

import jupytext
import papermill
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

import cpadapt
from companion import notebooks, your_task
from cpadapt import advice
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.store import load_records

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))
PARAMETERIZED = [path for path in NOTEBOOKS if 'tags=["parameters"' in path.read_text(encoding="utf-8")]
PROTOCOL = {"steps": 4, "eval_every": 2, "batch_size": 4, "train_cap": 20, "dev_cap": 10, "eval_cap": 12}
STUDY = """
name = "small"
backbone = "tiny"
tasks = ["toy-sentiment", "toy-reading"]
ladder = { head = true, sizes = { cp = [1] } }
protocol = { steps = 4, eval_every = 2, batch_size = 4, train_cap = 20, dev_cap = 10, eval_cap = 12 }
"""


def convert(notebook: Path, folder: Path) -> Path:
    """The notebook as `make notebooks` makes it."""
    made = folder / f"{notebook.stem}.ipynb"
    jupytext.write(notebooks.read(notebook), made)
    return made


def run(notebook: Path, folder: Path, **parameters: Any) -> Any:
    return papermill.execute_notebook(
        str(notebook), str(folder / "out.ipynb"), parameters=parameters, cwd=str(folder), progress_bar=False
    )


@pytest.fixture
def run_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (notebook,) = (path for path in NOTEBOOKS if path.stem == "run_budget")
    return convert(notebook, tmp_path)


def test_the_notebooks_that_measure_have_parameters() -> None:
    assert {"run_budget", "study_in_small", "your_task"} <= {path.stem for path in PARAMETERIZED}


@pytest.mark.parametrize("notebook", PARAMETERIZED, ids=lambda path: path.stem)
def test_papermill_knows_the_parameters_of_every_notebook(notebook: Path, tmp_path: Path) -> None:
    read = jupytext.read(notebook)
    assert read.metadata["kernelspec"]["name"] == "python3"
    (cell,) = (cell for cell in read.cells if "parameters" in cell.metadata.get("tags", []))
    declared = {}
    for statement in ast.parse(cell.source).body:
        if isinstance(statement, ast.ImportFrom):
            assert statement.module == "typing"
            continue
        assert isinstance(statement, ast.AnnAssign), f"{ast.unparse(statement)} has no type"
        assert statement.value is not None
        ast.literal_eval(statement.value)
        declared[ast.unparse(statement.target)] = statement
    known = papermill.inspect_notebook(str(convert(notebook, tmp_path)))
    assert set(known) == set(declared)
    assert all(found["inferred_type_name"] != "None" for found in known.values())
    # The guard comes next, before anything is done.
    after = [c.source for c in read.cells[read.cells.index(cell) + 1 :] if c.cell_type == "code"]
    assert "check_parameters(globals())" in after[0]


@pytest.mark.long
def test_without_a_study(run_budget: Path, tmp_path: Path) -> None:
    done = run(run_budget, tmp_path, backbone="tiny", protocol=PROTOCOL, seeds=[0, 1], results_dir="r")
    records = load_records(tmp_path / "r")
    # At one LoRA rank, 224 scalars: CP's step is 92.
    assert sorted({(r.label, r.config.size) for r in records}) == [("cp", 2), ("head", 0), ("lora", 1)]
    assert len(records) == 6
    assert {r.config.task for r in records} == {"toy-sentiment"}
    shown = [str(output) for cell in done.cells for output in cell.get("outputs", ())]
    assert sum("vega" in text for text in shown) >= 2


@pytest.mark.long
def test_a_study_s_task_at_a_budget(run_budget: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    changes = {"steps": 2, "eval_every": 1}
    run(
        run_budget, tmp_path, study="small.toml", task="toy-reading", budget=300, changes=changes, results_dir="r",
        save_dir="w",
    )  # fmt: skip
    records = load_records(tmp_path / "r")
    kept = {(p.steps, p.eval_every, p.batch_size, p.eval_cap) for p in (r.config.protocol for r in records)}
    assert kept == {(2, 1, 4, 12)}, "changed, and the rest as the study has it"
    assert sorted((r.config.task, r.label, r.config.size) for r in records) == [
        ("toy-reading", "cp", 3), ("toy-reading", "head", 0), ("toy-reading", "lora", 1),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == sorted(r.id for r in records)


@pytest.mark.long
def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its adapter, as plain LoRA in PEFT alone, and its head give the answers that the run's record has."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (notebook,) = (path for path in NOTEBOOKS if path.stem == "your_task")
    run(convert(notebook, tmp_path), tmp_path, backbone="tiny-encoder", runs=21, protocol=PROTOCOL, out_dir="o")
    found = advice.advise(load_records(tmp_path / "o" / "records"))
    trained = tmp_path / "o" / "runs" / found.run.id
    base = cpadapt.load_backbone("tiny-encoder")
    adapter = your_task.as_lora(found.run, trained, tmp_path / "o" / "lora" / found.run.id)
    model, head = PeftModel.from_pretrained(base.model, adapter), load_file(trained / "head.safetensors")
    asked = load_task(load_spec(tmp_path / "o" / "example" / "reviews.toml"), caps=found.run.config.protocol.caps).eval
    right = []
    for (text,), label in zip(asked.texts, asked.labels, strict=True):
        with torch.no_grad():
            hidden = model(**base.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        features = torch.nn.functional.layer_norm(hidden.mean(0), hidden.shape[1:])
        right.append(int((head["weight"] @ features + head["bias"]).argmax()) == label)
    assert found.run.outcome
    assert found.run.outcome.right_by_row == dict(zip(asked.rows.tolist(), right, strict=True))


@pytest.mark.long
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"tsak": "sst2"}, r"unknown parameter 'tsak' \(did you mean 'task'\?\)"),
        ({"seeds": "0-2"}, "parameter seeds = '0-2': must be of type list"),
    ],
)
def test_a_wrong_parameter_stops_it(parameters: dict[str, Any], named: str, run_budget: Path, tmp_path: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError, match=named):
        run(run_budget, tmp_path, backbone="tiny", protocol=PROTOCOL, results_dir="r", **parameters)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ipynb", "run_budget.ipynb"]
