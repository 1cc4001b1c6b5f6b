import json
import math

import pytest
from peft import PeftConfig

from cpadapt.errors import InputError
from cpadapt.tuner import CPConfig
from cpadapt.tuner.registry import CONFIG_TYPE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_components": 0}, "num_components must be a positive integer, not 0"),
        ({"num_components": 2.0}, "num_components must be a positive integer, not 2.0"),
        ({"num_components": True}, "num_components must be a positive integer, not True"),
        ({"scale": 0}, "scale must be a positive number, not 0"),
        ({"scale": math.inf}, "scale must be a positive number, not inf"),
        ({"scale": "8"}, "scale must be a positive number, not '8'"),
        ({"raw_norm": -1.0}, "raw_norm must be a positive number, not -1.0"),
        ({"init": "ones"}, "'zero' or 'normal', not 'ones'"),
        ({"init_std": 0.1}, "init_std = 0.1 is for init = 'normal'"),
        ({"init": "normal", "init_std": 0}, "init_std must be a positive number, not 0"),
        ({"components_pattern": {"q": 0}}, "components_pattern['q'] must be a positive integer, not 0"),
        ({"seed": -1}, "seed must be a non-negative integer or None, not -1"),
        ({"seed": True}, "seed must be a non-negative integer or None, not True"),
        ({"tensor_shape": {2048: (32, 63)}}, "splits 2048 into (32, 63), which multiply to 2016"),
        ({"tensor_shape": {12: (-3, -4)}}, "give positive modes with product 12"),
        ({"tensor_shape": {12: 12}}, "tensor_shape = {12: 12}: give the modes"),
        ({"tensor_shape": {12: (1.5, 8)}}, "tensor_shape = {12: (1.5, 8)}: give the modes"),
        ({"tensor_shape": {"many": (1, 2)}}, "tensor_shape = {'many': (1, 2)}: give the modes"),
        ({"tensor_shape": [32, 64]}, "tensor_shape = [32, 64]: give the modes"),
        (
            {"target_modules": "q|v", "layers_to_transform": [0]},
            "layers_to_transform=[0] needs a list of target_modules",
        ),
        (
            {"target_modules": "q|v", "layers_to_transform": 0},
            "layers_to_transform=0 needs a list of target_modules",
        ),
        (
            {"layers_pattern": "h"},
            "layers_pattern='h' needs layers_to_transform",
        ),
    ],
)
def test_a_bad_value_is_named_when_the_config_is_built(fields, message):
    with pytest.raises(InputError) as error:
        CPConfig(**{"num_components": 1} | fields)
    assert message in str(error.value)


def test_there_are_no_components_by_default():
    with pytest.raises(TypeError, match="num_components"):
        CPConfig()


@pytest.mark.parametrize("load", [CPConfig.from_pretrained, PeftConfig.from_pretrained])
def test_json_and_back(tmp_path, load):
    config = CPConfig(
        num_components=5,
        tensor_shape={1009: (1009,), 576: (8, 8, 9)},
        scale=2.5,
        init="normal",
        init_std=0.2,
        raw_norm=0.5,
        components_pattern={"v_proj": 2},
        seed=3,
        target_modules=["q_proj"],
        exclude_modules=["layers.0.q_proj"],
        modules_to_save=["score"],
        layers_to_transform=[0, 2],
        layers_pattern="h",
    )
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == CONFIG_TYPE
    loaded = load(tmp_path)
    assert type(loaded) is CPConfig
    assert loaded == config
    assert loaded.tensor_shape == {1009: (1009,), 576: (8, 8, 9)}


@pytest.mark.parametrize("empty", [[], "", None])
def test_empty_is_not_given(empty):
    config = CPConfig(num_components=1, layers_pattern=empty, layers_to_transform=[], components_pattern={})
    assert (config.layers_pattern, config.layers_to_transform, config.components_pattern) == (None, None, {})
