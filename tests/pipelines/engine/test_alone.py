"""One item in a process of its own, whose end tells what became of it."""

import os
import pickle
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from curation.errors import ConfigError, ExecutorError
from pipelines.engine.alone import do_alone
from pipelines.engine.runner import Death
from pipelines.engine.step import AnyStep, NoSettings, Receipt, Step, Work

RECEIPT = Receipt("touch", "0" * 32, "steps/touch/0", {}, {"num_rows": 1})


def load(_settings: NoSettings) -> Work[NoSettings]:
    def work(_attempt: object) -> dict[str, Any]:
        return {}

    return work


def succeed(_work: object) -> Receipt:
    return RECEIPT


def fail(error: Exception, _work: object) -> Receipt:
    raise error


def die(number: int, _work: object) -> Receipt:
    os.kill(os.getpid(), number)
    return RECEIPT


def leave(_work: object) -> Receipt:
    os._exit(3)


def _alone(perform: Callable[[object], Receipt]) -> Receipt | Death:
    step: AnyStep = Step("touch", 1, NoSettings(), load, "describe")
    return do_alone(pickle.dumps((perform, step)))


def test_its_receipt_comes_back() -> None:
    assert _alone(succeed) == RECEIPT


def test_its_error_comes_back_and_any_other_is_ours() -> None:
    with pytest.raises(ConfigError, match="no such thing") as error:
        _alone(partial(fail, ConfigError("no such thing", got=1, remedy="Do it")))
    assert (error.value.got, error.value.remedy) == (1, "Do it")
    with pytest.raises(ExecutorError, match="KeyError"):
        _alone(partial(fail, KeyError("x")))


@pytest.mark.parametrize(
    ("perform", "cause", "blames_item"),
    [
        (partial(die, signal.SIGKILL), "exit code -9", False),  # as the kernel does for want of memory
        (partial(die, signal.SIGSEGV), "exit code -11", True),
        (leave, "exit code 3", True),
    ],
)
def test_its_death_says_whose_fault_it_is(
    perform: Callable[[object], Receipt], cause: str, blames_item: bool
) -> None:
    assert _alone(perform) == Death(cause, blames_item=blames_item)
