"""Registers CP with PEFT without importing PEFT, which would take seconds.

Importing `cpadapt.tuner` registers CP. If peft is not loaded yet, a finder on `sys.meta_path` imports
`cpadapt.tuner` right after peft. So `peft.PeftModel.from_pretrained` loads a saved CP adapter in either order of
imports.
"""

import importlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register_with_peft() -> None:
    """Register CP now if peft is loaded, else as soon as it is. A second call changes nothing.

    Raises:
        ImportError: peft is loaded and lacks something that CP uses.
    """
    if "peft" in sys.modules:
        importlib.import_module("cpadapt.tuner")
    elif not any(isinstance(finder, _PeftFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PeftFinder())


class _PeftFinder(MetaPathFinder):
    """Finds peft through the other finders and registers CP once it is loaded."""

    def __init__(self) -> None:
        self._asking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "peft" or getattr(self._asking, "others", False):
            return None
        self._asking.others = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking.others = False
        # transformers asks for the spec to see whether peft is installed, so the finder stays until peft is loaded.
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, self)
        return spec


class _RegisteringLoader(Loader):
    """Loads a module with its own loader, then imports `cpadapt.tuner`."""

    def __init__(self, loader: Loader, finder: _PeftFinder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        try:
            importlib.import_module("cpadapt.tuner")
        except ImportError as error:
            # Importing peft must not fail because of CP; using `cpadapt.CPConfig` raises the error.
            warnings.warn(f"CP is not registered with PEFT: {error}", stacklevel=2)
