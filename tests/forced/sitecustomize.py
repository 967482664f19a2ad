"""Forces the arithmetic of a run of tests in the processes that these start; put there by `arithmetic.py`.

It waits until the products are imported: most processes never do, and are not to import torch for it.
"""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_FORCED_BY = "curation.search.product"


class _AfterImport:
    @staticmethod
    def find_spec(name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if name != _FORCED_BY:
            return None
        sys.meta_path.remove(_AfterImport)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_force(module: ModuleType) -> None:
            execute(module)
            sys.modules[name] = module
            sys.path.append(str(Path(__file__).resolve().parents[1]))
            from arithmetic import VARIABLE, force

            force(os.environ[VARIABLE])

        spec.loader.exec_module = execute_and_force  # type: ignore[method-assign]
        return spec


if os.environ.get("LVD_TEST_ARITHMETIC"):
    sys.meta_path.insert(0, _AfterImport)
