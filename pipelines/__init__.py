"""What runs, for whoever calls it from Python: the names of `__all__`.

`curate` is what `lvd run` does: `run` of the module `pipelines.run`, with which it would share a name here.
A name is imported when it is asked for (PEP 562): whatever imports a module of this package comes through
here, the command line too, and that waits for no torch. The block of `TYPE_CHECKING` shows the same names to
editors, to mypy and to the pages of docs/.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.answers.open_run import OpenRun, open_run
    from pipelines.answers.verify import verify
    from pipelines.config.run_config import RunConfig, load_config, validate
    from pipelines.report.write import rewrite_report
    from pipelines.run import RunResult
    from pipelines.run import run as curate

__all__ = [
    "OpenRun",
    "RunConfig",
    "RunResult",
    "curate",
    "load_config",
    "open_run",
    "rewrite_report",
    "validate",
    "verify",
]
_HOMES = {
    "OpenRun": ("pipelines.answers.open_run", "OpenRun"),
    "RunConfig": ("pipelines.config.run_config", "RunConfig"),
    "RunResult": ("pipelines.run", "RunResult"),
    "curate": ("pipelines.run", "run"),
    "load_config": ("pipelines.config.run_config", "load_config"),
    "open_run": ("pipelines.answers.open_run", "open_run"),
    "rewrite_report": ("pipelines.report.write", "rewrite_report"),
    "validate": ("pipelines.config.run_config", "validate"),
    "verify": ("pipelines.answers.verify", "verify"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, original = _HOMES[name]
    return getattr(import_module(module), original)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
