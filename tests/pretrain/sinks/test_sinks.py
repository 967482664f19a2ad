"""Sinks get what `metrics.jsonl` gets, each step once; the libraries are the real ones, without a network."""

import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from curation.errors import ConfigError
from pretrain.metrics import MetricsLog, read_metrics
from pretrain.sinks import feed
from pretrain.sinks.config import MlflowConfig, SinkConfigs, TensorBoardConfig, TrackioConfig, WandbConfig
from pretrain.sinks.feed import Sinks
from pretrain.sinks.required import require_sinks
from pretrain.sinks.sink import Told, leaves

# Of a training that was killed behind its checkpoint of step 2, and resumed.
FIRST, AGAIN = (0, 1, 2, 3, 4), (3, 4, 5)
SETTINGS = {"schedule": {"base_lr": 0.004}, "sinks": [], "path": "s3://key:secret@bucket/x"}


def line(step: int) -> dict[str, Any]:
    return {"step": step, "loss": 10.0 - step, "skipped": False, "koleo": None, "grad_norm_x": float("nan")}


def train_twice(config: Any, run_dir: Path) -> list[str]:
    """Two processes' worth of lines; returns what was said."""
    said: list[str] = []
    sinks = Sinks((config,), "drawn", SETTINGS)
    for first_step, steps in ((0, FIRST), (2, AGAIN)):
        with MetricsLog(run_dir, first_step=first_step, warn=said.append, sinks=sinks) as log:
            for step in steps:
                log.write(line(step))
        time.sleep(1.1 if config.kind == "wandb" else 0)  # its folders are named by the second
    assert [one["step"] for one in read_metrics(run_dir)] == [0, 1, 2, 3, 4, 5]
    return said


def test_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train_twice(TensorBoardConfig(kind="tensorboard"), tmp_path) == []
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == ["loss", "skipped"]
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(n, 10.0 - n) for n in range(6)]
    [text] = found.Tensors("config/text_summary")
    [shown] = text.tensor_proto.string_val
    assert b'"base_lr": 0.004' in shown
    assert b"secret" not in shown


def test_folders_that_trainings_share_keep_them_apart(tmp_path: Path) -> None:
    train_twice(TensorBoardConfig(kind="tensorboard", dir=str(tmp_path / "board")), tmp_path / "run")
    assert [path.name for path in (tmp_path / "board").iterdir()] == ["drawn"]


def test_mlflow_goes_on_with_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    config = MlflowConfig(kind="mlflow", tracking_uri=(tmp_path / "store").as_uri(), experiment="ours")
    assert train_twice(config, tmp_path / "run") == []
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=config.tracking_uri)
    experiment = client.get_experiment_by_name("ours")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("drawn", "FINISHED")
    assert run.data.params == {
        "schedule.base_lr": "0.004", "sinks": "[]", "path": "s3://***@bucket/x",
    }  # fmt: skip
    points = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(n, 10.0 - n) for n in range(6)]


def wandb_steps(file: Path) -> list[dict[str, float]]:
    """The history in a run's file: records of protobuf in LevelDB's log format, 32 KiB blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole, steps = file.read_bytes(), 7, b"", []
    while at < len(data):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            if record.HasField("history"):
                items = record.history.item
                steps.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return steps


def test_wandb_goes_on_with_the_same_run_offline(tmp_path: Path) -> None:
    config = WandbConfig(kind="wandb", project="ours", mode="offline")
    require_sinks([config])  # needs no key
    assert train_twice(config, tmp_path) == []
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert files[0].name == files[1].name  # `wandb sync` makes one run of them
    found = [(step["_step"], step["loss"]) for file in files for step in wandb_steps(file)]
    assert found == [(n, 10.0 - n) for n in range(6)]
    assert b"secret" not in files[0].read_bytes()


def test_trackio_goes_on_with_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read as it is imported
    trackio = pytest.importorskip(
        "trackio", reason="trackio asks for Pillow < 13, and is not installed beside the one that is pinned"
    )
    if not hasattr(trackio, "Api"):
        pytest.skip(f"trackio {trackio.__version__} is none that `lvd[trackio]` takes")
    assert train_twice(TrackioConfig(kind="trackio", project="ours"), tmp_path / "run") == []
    from trackio.sqlite_storage import SQLiteStorage

    [run] = trackio.Api().runs("ours")
    found = [(log["step"], log["loss"]) for log in SQLiteStorage.get_logs("ours", run.name)]
    assert found == [(n, 10.0 - n) for n in range(6)]
    assert capsys.readouterr().out == ""


class Broken:
    """Fails at a step, as a server does."""

    def __init__(self, *, at: int) -> None:
        self.at, self.steps, self.closed = at, list[int](), list[bool]()

    def write(self, step: int, _values: Mapping[str, float]) -> None:
        if step >= self.at:
            raise ConnectionError("http://user:password@host/x does not answer")
        self.steps.append(step)

    def close(self, *, is_done: bool) -> None:
        self.closed.append(is_done)


def test_a_sink_that_fails_says_so_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Broken] = []
    monkeypatch.setattr(feed, "open_sink", lambda *_: made.append(Broken(at=3)) or made[-1])
    [said] = train_twice(MlflowConfig(kind="mlflow"), tmp_path)[:1]
    assert said == (
        "The sink mlflow failed (ConnectionError: http://***@host/x does not answer). The training goes on "
        "without it; metrics.jsonl has what it misses, and the next start of the training tries it again"
    )
    assert [one.steps for one in made] == [[0, 1, 2], []]  # the second start does not begin with step 3 again


def test_a_sink_that_cannot_be_opened_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file, where a folder is due")
    said = train_twice(TensorBoardConfig(kind="tensorboard"), tmp_path)
    assert len(said) == 2  # once for each start
    assert all(text.startswith("The sink tensorboard failed (") for text in said)


def test_a_sink_that_is_slow_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()

    def opened(_config: object, _told: Told) -> Broken:
        hold.wait(30)
        return Broken(at=99)

    monkeypatch.setattr(feed, "open_sink", opened)
    monkeypatch.setattr(feed, "CLOSE_S", 0.1)
    monkeypatch.setattr(feed, "MAX_WAITING", 3)
    said: list[str] = []
    for number in (2, 4):  # as much as there is room for, and more
        sinks = Sinks((MlflowConfig(kind="mlflow"),), "drawn", {})
        with MetricsLog(tmp_path, first_step=0, warn=said.append, sinks=sinks) as log:
            for step in range(number):
                log.write(line(step))
    hold.set()
    assert ["it has not taken everything in after 0 s" in said[0], "3 lines wait for it" in said[1]] == [
        True
    ] * 2
    assert len(said) == 2


@pytest.mark.parametrize("is_done", [True, False])
def test_a_sink_learns_how_the_training_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    sink = Broken(at=99)
    monkeypatch.setattr(feed, "open_sink", lambda *_: sink)
    sinks = Sinks((MlflowConfig(kind="mlflow"),), "drawn", {})
    try:
        with MetricsLog(tmp_path, first_step=0, warn=pytest.fail, sinks=sinks) as log:
            log.write(line(0))
            if not is_done:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert (sink.steps, sink.closed) == ([0], [is_done])


def test_a_training_that_begins_anew_is_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    monkeypatch.setattr(feed, "open_sink", lambda _, told: runs.append(told.run) or Broken(at=99))
    for first_step in (0, 0, 1, 1):
        with MetricsLog(
            tmp_path,
            first_step=first_step,
            warn=pytest.fail,
            sinks=Sinks((MlflowConfig(kind="mlflow"),), "x", {}),
        ) as log:
            log.write(line(first_step + 1))
        (tmp_path / "sinks.json").write_text(
            "torn" if len(runs) == 3 else (tmp_path / "sinks.json").read_text()
        )
    assert runs[0] != runs[1] == runs[2] != runs[3]


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow", "wandb", "trackio"])
def test_a_package_that_is_missing_is_named_with_its_extra(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    [config] = TypeAdapter(SinkConfigs).validate_python([{"kind": kind}])
    with pytest.raises(ConfigError) as raised:
        require_sinks([config])
    assert f"The sink {kind} needs a package" in str(raised.value)
    assert f"pip install 'lvd[{kind}]'" in str(raised.value)


def test_what_is_missing_besides_a_package_is_said_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="has no key of yours") as raised:
        require_sinks([WandbConfig(kind="wandb")])
    assert "mode: offline" in str(raised.value)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install mlflow"):
        require_sinks([MlflowConfig(kind="mlflow", tracking_uri="sqlite:///runs.db")])
    require_sinks([MlflowConfig(kind="mlflow", tracking_uri="http://localhost:5000")])


def test_one_sink_of_a_kind_is_enough() -> None:
    with pytest.raises(ValidationError, match="mlflow stands there twice"):
        TypeAdapter(SinkConfigs).validate_python([{"kind": "mlflow"}] * 2)
    with pytest.raises(ValidationError, match="api_key"):
        TypeAdapter(SinkConfigs).validate_python([{"kind": "wandb", "api_key": "x"}])


def test_settings_are_told_leaf_by_leaf() -> None:
    assert leaves({"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "f": None}) == {
        "a.b": 1, "a.c.d": [1, {"e": 2}], "f": None,
    }  # fmt: skip
