"""What a saved adapter says of itself, and what of it is refused."""

import json
import subprocess
import sys
import warnings
from contextlib import nullcontext
from importlib.metadata import version

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from cpadapt.cli import app
from cpadapt.errors import InputError
from cpadapt.tuner import CPConfig, export_to_lora, save_adapter, to_lora
from cpadapt.tuner.export import Ranks, ranks

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def language_model():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=False, **SIZES)).eval()


KINDS = ["cp", "lora"]


def config(kind, **fields):
    if kind == "cp":
        return CPConfig(num_components=2, init="normal", **fields)
    return LoraConfig(r=2, init_lora_weights=False, **fields)


def saved(folder, base=None, **fields):
    config = CPConfig(**{"num_components": 2, "init": "normal", "target_modules": ["q_proj", "v_proj"]} | fields)
    model = get_peft_model(base or language_model(), config).eval()
    model.save_pretrained(folder)
    return model


def header(folder):
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("by", ["peft", "peft, in a folder of its name", "cpadapt"])
def test_the_folder_names_what_loading_needs(toy, tmp_path, run_params, by):
    folder = tmp_path
    if by == "cpadapt":
        save_adapter(tmp_path, "cp", 3.0, run_params(toy, "cp", 2))
    else:
        name = "default" if by == "peft" else "mine"
        get_peft_model(toy.model(), toy.config(scale=3.0), adapter_name=name).save_pretrained(tmp_path)
        folder = tmp_path if name == "default" else tmp_path / name
    assert "import cpadapt" in json.loads((folder / "adapter_config.json").read_text())["peft_type"]
    card = (folder / "README.md").read_text()
    assert "library_name: peft" in card
    assert card.count("## Loading") == 1
    assert "import cpadapt\nfrom peft import PeftModel\n" in card
    found = header(folder)
    assert (found["format"], found["cpadapt"]) == ("pt", version("cpadapt"))
    assert json.loads(found["cp"])["scale"] == 3.0
    before = load_file(folder / "adapter_model.safetensors")
    loaded = PeftModel.from_pretrained(toy.model(), folder)
    loaded.save_pretrained(folder)
    assert (folder / "README.md").read_text().count("## Loading") == 1
    after = load_file(folder / "adapter_model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_weights_and_transformers_own_folders_have_a_card_too(tmp_path, kind):
    """Their weights' header is torch's, or PEFT's: `save_pretrained` of transformers writes them after the config."""
    ids = torch.tensor([[1, 2, 3]])
    model = get_peft_model(language_model(), config(kind)).eval()
    model.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    loaded = PeftModel.from_pretrained(language_model(), tmp_path / "pickled").eval()
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    model = language_model()
    model.add_adapter(config(kind))
    model.save_pretrained(tmp_path / "transformers")
    assert header(tmp_path / "transformers") == {"format": "pt"}
    loaded = language_model()
    loaded.load_adapter(str(tmp_path / "transformers"))
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    for folder in ("pickled", "transformers"):
        card = tmp_path / folder / "README.md"
        assert (card.is_file() and "import cpadapt\n" in card.read_text()) is (kind == "cp")


@pytest.mark.long
def test_without_cpadapt_every_way_of_loading_says_what_to_import(tmp_path):
    language_model().save_pretrained(tmp_path / "base")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    saved(tmp_path / "cp", base, task_type="CAUSAL_LM")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    get_peft_model(base, config("lora", task_type="CAUSAL_LM")).save_pretrained(tmp_path / "lora")
    script = """
import sys
sys.modules["cpadapt"] = None  # an import of it fails
import peft, transformers
base = lambda: transformers.AutoModelForCausalLM.from_pretrained("base")
for load in (
    lambda folder: peft.PeftConfig.from_pretrained(folder),
    lambda folder: peft.PeftModel.from_pretrained(base(), folder),
    lambda folder: peft.AutoPeftModelForCausalLM.from_pretrained(folder),
    lambda folder: transformers.AutoModelForCausalLM.from_pretrained(folder),
    lambda folder: base().load_adapter(folder),
):
    load("lora")
    try:
        load("cp")
    except Exception as error:
        print(type(error).__name__, "import cpadapt" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["KeyError True"] * 5


def as_first_saved(folder):
    """Give a saved adapter the names of its tensors, and the fields, that it would have had at first."""
    config = json.loads((folder / "adapter_config.json").read_text())
    for new in ("components_pattern", "seed"):
        config.pop(new)
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "CP"}))
    file = folder / "adapter_model.safetensors"
    state = {}
    for key, tensor in load_file(file).items():
        module, _, name = key.rpartition(".cp_adapter.")
        state[f"{module}.cp_{name.replace('_', '.')}"] = tensor
    assert {key.rpartition("q_proj.")[2] for key in state} >= {"cp_up.0", "cp_up.1", "cp_down.0", "cp_weight"}
    save_file(state, file, metadata={"format": "pt"})
    return state


def test_an_adapter_of_the_first_names_loads(toy, tmp_path):
    model = get_peft_model(toy.model(), toy.config()).eval()
    model.save_pretrained(tmp_path)
    state = as_first_saved(tmp_path)
    assert torch.equal(toy.logits(PeftModel.from_pretrained(toy.model(), tmp_path).eval()), toy.logits(model))
    again = get_peft_model(toy.model(), toy.config(), adapter_name="other")
    again.load_adapter(tmp_path, adapter_name="loaded")
    again.set_adapter("loaded")
    assert torch.equal(toy.logits(again.eval()), toy.logits(model))
    state = {key.removeprefix("base_model.model."): tensor for key, tensor in state.items()}
    bare = inject_adapter_in_model(CPConfig.from_pretrained(tmp_path), toy.model(), state_dict=state)
    set_peft_model_state_dict(bare, state)
    assert torch.equal(toy.logits(bare.eval()), toy.logits(model))
    export_to_lora(tmp_path, tmp_path / "lora")
    assert_close(toy.logits(PeftModel.from_pretrained(toy.model(), tmp_path / "lora").eval()), toy.logits(model))


def test_transformers_refuses_the_first_names_until_they_are_saved_again(tmp_path):
    """It would put a new adapter in the place of those that it doesn't find."""
    language_model().save_pretrained(tmp_path / "base")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    model = saved(tmp_path / "cp", base, task_type="CAUSAL_LM")
    ids = torch.tensor([[1, 2, 3]])
    expected = model(input_ids=ids).logits
    state = as_first_saved(tmp_path / "cp")

    def by_load_adapter(**fields):
        model = language_model()
        model.load_adapter(**fields)
        return model

    ways = [
        lambda folder: by_load_adapter(peft_model_id=str(folder)),
        lambda folder: LlamaForCausalLM.from_pretrained(folder),
        lambda folder: AutoModelForCausalLM.from_pretrained(folder),
    ]
    for load in ways:
        with pytest.raises(InputError, match=r"earlier cpadapt, .*PeftModel.from_pretrained and save it again"):
            load(tmp_path / "cp")
    with pytest.raises(InputError, match="saved by an earlier cpadapt"):
        by_load_adapter(adapter_state_dict=state, peft_config=CPConfig.from_pretrained(tmp_path / "cp"))
    PeftModel.from_pretrained(language_model(), tmp_path / "cp").save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "base")
    (tmp_path / "again" / "adapter_config.json").write_text(json.dumps(config))
    for load in ways:
        assert torch.equal(load(tmp_path / "again").eval()(input_ids=ids).logits, expected)


def damaged(state, how):
    key = next(key for key in state if key.endswith("up_0"))
    if how == "empty":
        return state | {key: torch.zeros(0)}
    if how == "undefined":
        return state | {key: torch.full_like(state[key], torch.nan)}
    return {f"module.{name}": tensor for name, tensor in state.items()}


def test_empty_tensors_of_a_lora_are_warned_of_too(toy, tmp_path):
    model = get_peft_model(toy.model(), toy.config("lora"))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.zeros(0)
    with pytest.warns(UserWarning, match=r"4 LoRA tensor\(s\) have invalid shape"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("empty", r"1 tensors are empty, such as '.*up_0': the parameters were sharded"),
        ("undefined", r"1 tensors have NaN or infinite entries, such as '.*up_0'"),
        ("lost", "it has no CP tensors"),
    ],
)
def test_what_is_not_sound_is_warned_of_and_not_exported(toy, tmp_path, how, why):
    model = get_peft_model(toy.model(), toy.config())
    with pytest.warns(UserWarning, match=why):
        model.save_pretrained(tmp_path / "cp", state_dict=damaged(model.state_dict(), how))
    with pytest.raises(InputError, match=f"is not sound: .*{why}"):
        export_to_lora(tmp_path / "cp", tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save_pretrained(tmp_path / "sound")


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_around_a_compiled_model_is_warned_of(toy, tmp_path, kind):
    """Of a LoRA, PEFT says nothing until it is loaded."""
    model = get_peft_model(torch.compile(toy.model(), backend="eager"), toy.config(kind))
    with pytest.warns(UserWarning, match="'_orig_mod'") if kind == "cp" else nullcontext():
        model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        PeftModel.from_pretrained(toy.model(), tmp_path)
    if kind == "lora":
        return
    with pytest.raises(InputError, match="'_orig_mod'"):
        export_to_lora(tmp_path, tmp_path / "lora")


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_holds_saved_modules_once(tmp_path, kind):
    """PEFT's files, of LoRA too, hold them three times."""
    language_model().save_pretrained(tmp_path / "base")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(68)
    model = get_peft_model(base, config(kind, modules_to_save=["embed_tokens", "lm_head"]))
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data.normal_()
    with pytest.warns(UserWarning, match="embedding layer has been resized"):
        model.save_pretrained(tmp_path / "saved")
    assert any("original_module" in key for key in load_file(tmp_path / "saved" / "adapter_model.safetensors"))
    if kind == "lora":
        return
    export_to_lora(tmp_path / "saved", tmp_path / "lora")
    others = {key for key in load_file(tmp_path / "lora" / "adapter_model.safetensors") if ".lora_" not in key}
    assert others == {"base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"}
    ids = torch.tensor([[1, 2, 66]])
    again = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    again.resize_token_embeddings(68)
    exported = PeftModel.from_pretrained(again, tmp_path / "lora").eval()
    assert_close(exported(input_ids=ids).logits, model.eval()(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


class Named(nn.Module):
    """Its modules have the names of PEFT's copies, and of ours."""

    NAMES = ("weight", "cp_adapter", "up_0", "original_module", "modules_to_save")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for name in self.NAMES:
            self.add_module(name, nn.Linear(8, 8))

    def forward(self, x):
        for name in self.NAMES:
            x = self.get_submodule(name)(x)
        return x


@pytest.mark.parametrize("kind", KINDS)
def test_adapted_modules_may_have_the_names_of_pefts_copies(tmp_path, kind):
    model = get_peft_model(Named(), config(kind, target_modules=list(Named.NAMES))).eval()
    x = torch.randn(3, 8)
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(PeftModel.from_pretrained(Named(), tmp_path / "saved").eval()(x), model(x))
    if kind == "cp":
        export_to_lora(tmp_path / "saved", tmp_path / "lora")
        exported = PeftModel.from_pretrained(Named(), tmp_path / "lora").eval()
        assert_close(exported(x), model(x), rtol=1e-4, atol=1e-5)


def test_an_adapter_that_changes_nothing_is_exported_with_a_warning(toy, tmp_path):
    get_peft_model(toy.model(), toy.config(init="zero")).save_pretrained(tmp_path / "cp")
    with pytest.warns(UserWarning, match="cp changes nothing: all its λ are zero, as before training"):
        export_to_lora(tmp_path / "cp", tmp_path / "lora")
    exported = PeftModel.from_pretrained(toy.model(), tmp_path / "lora").eval()
    assert torch.equal(toy.logits(exported), toy.logits(toy.model()))


@pytest.mark.parametrize(("rank", "flag"), [(1, 1), (2, 8), (21, 32), (43, 64), (171, 256), (512, 512), (513, None)])
def test_the_rank_that_vllm_is_told(tmp_path, rank, flag):
    module = "base_model.model.q_proj"
    tensors = {f"{module}.lora_A.weight": torch.zeros(rank, 600), f"{module}.lora_B.weight": torch.zeros(600, rank)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert ranks(tmp_path) == Ranks(largest=rank, for_vllm=flag, above_shorter_side=[])


def test_the_command_line_tells_rank_and_flag(tmp_path):
    saved(tmp_path / "cp", num_components=21)
    run = CliRunner().invoke(app, ["export", str(tmp_path / "cp"), str(tmp_path / "lora")])
    assert run.exit_code == 0
    assert "of rank 21\nvLLM needs --max-lora-rank 32\n" in run.output
    assert "2 projections, such as model.layers.0.self_attn.q_proj, have a shorter side below their rank" in run.stderr
    run = CliRunner().invoke(app, ["export", str(tmp_path / "cp"), str(tmp_path / "small"), "--smallest-rank"])
    assert "of rank 16\nvLLM needs --max-lora-rank 16\n" in run.output
    assert not run.stderr


def test_a_rank_above_the_shorter_side_can_be_made_smaller(tmp_path):
    model = saved(tmp_path / "cp", num_components=20, components_pattern={"v_proj": 3})
    export_to_lora(tmp_path / "cp", tmp_path / "lora")
    assert ranks(tmp_path / "lora").above_shorter_side == ["model.layers.0.self_attn.q_proj"]
    export_to_lora(tmp_path / "cp", tmp_path / "small", smallest_rank=True)
    found = ranks(tmp_path / "small")
    assert (found.largest, found.for_vllm, found.above_shorter_side) == (16, 16, [])
    ids = torch.tensor([[1, 2, 3]])
    expected = model(input_ids=ids).logits
    for folder in ("lora", "small"):
        exported = PeftModel.from_pretrained(language_model(), tmp_path / folder).eval()
        assert_close(exported(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
        sizes = {m.lora_A["default"].weight.shape[0] for m in exported.modules() if getattr(m, "lora_A", None)}
        assert sizes == ({20, 3} if folder == "lora" else {16, 3})


def test_a_scaled_layer_converts_as_it_is(toy):
    model = get_peft_model(toy.model(), toy.config()).eval()
    model.base_model.model.q_proj.scale_layer(0.5)
    assert torch.equal(toy.logits(to_lora(model)), toy.logits(model))


def test_layers_to_transform_are_exported_as_the_modules_that_they_are(llama, tmp_path):
    config = llama.config(target_modules="all-linear", layers_to_transform=1, task_type="SEQ_CLS")
    model = get_peft_model(llama.model(), config).eval()
    assert {name.split(".")[2] for name in model.targeted_module_names} == {"1"}
    model.save_pretrained(tmp_path / "cp")
    assert torch.equal(
        llama.logits(PeftModel.from_pretrained(llama.model(), tmp_path / "cp").eval()), llama.logits(model)
    )
    export_to_lora(tmp_path / "cp", tmp_path / "lora")
    exported = PeftModel.from_pretrained(llama.model(), tmp_path / "lora").eval()
    assert type(exported.peft_config["default"]) is LoraConfig
    assert set(exported.targeted_module_names) == set(model.targeted_module_names)
    assert_close(llama.logits(exported), llama.logits(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [[7], 7])
def test_layers_that_all_linear_has_not_are_refused(llama, layers):
    with pytest.raises(InputError, match=r"layers_to_transform=\[?7\]? leaves none .* of 'all-linear', .*k_proj"):
        get_peft_model(llama.model(), llama.config(target_modules="all-linear", layers_to_transform=layers))


# An adapted output layer counts as an embedding, which PEFT saves in full.
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("targets", "layers", "adapted"),
    [
        (["q_proj", "lm_head"], [0], {"model.layers.0.self_attn.q_proj", "lm_head"}),
        (
            ["model.layers.0.self_attn.v_proj", "q_proj"],
            1,
            {f"model.layers.{k}.self_attn.{n}" for k, n in ((0, "v_proj"), (1, "q_proj"))},
        ),
    ],
    ids=["outside of all layers", "in another layer"],
)
def test_a_module_named_in_full_is_adapted_whatever_its_layer(tmp_path, kind, targets, layers, adapted):
    """`layers_to_transform` is for the names that several layers have."""
    sizes = SIZES | {"num_hidden_layers": 2}

    def base():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=False, **sizes)).eval()

    model = get_peft_model(base(), config(kind, target_modules=targets, layers_to_transform=layers)).eval()
    assert set(model.targeted_module_names) == adapted
    model.save_pretrained(tmp_path / "saved")
    ids = torch.tensor([[1, 2, 3]])
    expected = model(input_ids=ids).logits
    again = PeftModel.from_pretrained(base(), tmp_path / "saved").eval()
    assert set(again.targeted_module_names) == adapted
    assert torch.equal(again(input_ids=ids).logits, expected)
    if kind == "cp":
        export_to_lora(tmp_path / "saved", tmp_path / "lora")
        exported = PeftModel.from_pretrained(base(), tmp_path / "lora").eval()
        assert_close(exported(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
