"""The protocol: what the page shows for readers to type is accepted."""

import json
import re
import tomllib
from pathlib import Path

from companion import notebooks
from cpadapt import FamilyPlan, Protocol
from cpadapt.families import cp

SOURCE = notebooks.prose(Path(__file__).parents[2] / "notebooks" / "protocol.py")


def test_the_settings_that_are_shown_are_accepted() -> None:
    (command,) = re.findall(r"cpadapt run .*", SOURCE)
    settings = dict(text.split("=", 1) for text in re.findall(r"--set (\S+)", command))
    assert Protocol(**{name: json.loads(v) if v[0].isdigit() else v for name, v in settings.items()}) != Protocol()
    (example,) = re.findall(r"```toml\n(.*?)```", SOURCE, re.S)
    plan = tomllib.loads(example)["families"]["cp"]
    assert set(FamilyPlan(**plan).options) <= set(cp.INIT_OPTIONS)
