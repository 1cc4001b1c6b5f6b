from abc import abstractmethod
from importlib.metadata import requires

import fresh
import peft
import pytest

from cpadapt.tuner import CPConfig, CPModel
from cpadapt.tuner.registry import WORKS_WITH, CPType, register

REGISTRIES = ("PEFT_TYPE_TO_CONFIG_MAPPING", "PEFT_TYPE_TO_TUNER_MAPPING", "PEFT_TYPE_TO_PREFIX_MAPPING")


def entries():
    return {name: dict(getattr(peft.mapping, name)) for name in REGISTRIES}


def test_found_by_member_and_by_name_and_harmless_twice():
    before = entries()
    register(CPConfig, CPModel)
    assert entries() == before
    for key in (CPType.CP, "CP"):
        assert [before[name][key] for name in REGISTRIES] == [CPConfig, CPModel, "cp_"]


def test_a_class_made_anew_takes_the_place_of_the_old(monkeypatch):
    for name in REGISTRIES:
        monkeypatch.setattr(peft.mapping, name, dict(getattr(peft.mapping, name)))
    again = type("CPConfig", (CPConfig,), {"__module__": CPConfig.__module__})
    register(again, CPModel)
    assert peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING["CP"] is again


class Other:
    pass


@pytest.mark.parametrize(
    ("registry", "entry", "why"),
    [
        *[(name, {"CP": Other}, f"{name} uses 'CP' for") for name in REGISTRIES],
        ("PEFT_TYPE_TO_PREFIX_MAPPING", {"CPX": "cp_"}, "the prefix 'cp_' for 'CPX'"),
        *[(name, None, f"peft.mapping.{name} is missing") for name in REGISTRIES],
    ],
)
def test_fails_with_one_sentence_where_it_cannot_work(monkeypatch, registry, entry, why):
    for name in REGISTRIES:
        monkeypatch.setattr(peft.mapping, name, {})
    if entry is None:
        monkeypatch.delattr(peft.mapping, registry)
    else:
        monkeypatch.setattr(peft.mapping, registry, dict(entry))
    with pytest.raises(ImportError) as error:
        register(CPConfig, CPModel)
    assert why in str(error.value)
    assert f"works with {WORKS_WITH}, not with the installed peft {peft.__version__}" in str(error.value)
    # Nothing was entered halfway.
    assert all(getattr(peft.mapping, name, {}) == {} for name in REGISTRIES if name != registry)


def test_fails_where_peft_asks_a_tuner_for_more():
    class Unfinished(CPModel):
        @abstractmethod
        def _grow(self): ...

    with pytest.raises(ImportError, match=r"works with peft.*: it requires a tuner to have _grow"):
        register(CPConfig, Unfinished)


@pytest.mark.slow
def test_importing_on_such_a_peft_says_so_too():
    code = "import peft.mapping; del peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING; import cpadapt.tuner"
    last = fresh.fails(code).splitlines()[-1]
    assert last.startswith(f"ImportError: cpadapt's CP adapter works with {WORKS_WITH}, not with")
    assert last.endswith("peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING is missing")


def test_works_with_what_the_package_asks_for():
    (asked,) = [r for r in requires("cpadapt") if r.startswith("peft")]
    assert set(asked.removeprefix("peft").split(",")) == set(WORKS_WITH.removeprefix("peft").split(","))
