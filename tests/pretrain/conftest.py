"""What the tests of the trainer share: a small finished dataset, and torch left as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from drawn_dataset import write_drawn
from tiny import tiny_config

from pretrain.train import train


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a dataset of 37 pictures in three shards. To be read only."""
    return write_drawn(tmp_path_factory.mktemp("drawn") / "run")


@pytest.fixture(scope="session")
def teacher(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a training with a head for images and another one for patches."""
    run_dir = tmp_path_factory.mktemp("teacher") / "run"
    heads = {"separate": True, "ibot_prototypes": 24}
    config = tiny_config(
        run_dir=str(run_dir),
        data={"path": str(drawn)},
        model={"depth": 3},
        heads=heads,
        objective={"centring": "softmax"},
        schedule={"iterations": 3},
    )
    train(config, quiet=True)
    return run_dir


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order, as the other processes of a test have them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
