"""Trackers besides TensorBoard: what reaches them, in their own stores on this disk, and what fails."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY, write_pictures
from vqprior import UserError
from vqprior.configs import Config
from vqprior.runtime import services
from vqprior.runtime.services import Services
from vqprior.runtime.tracker import Tracker


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A client of MLflow's file store in an empty folder."""
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield mlflow.MlflowClient()
    mlflow.end_run()
    mlflow.set_tracking_uri(before)


def of_stages(store) -> dict[str, list]:
    """The runs in a store by their names."""
    (experiment,) = store.search_experiments(filter_string="name = 'vqprior'")
    found: dict[str, list] = {}
    for run in store.search_runs([experiment.experiment_id]):
        found.setdefault(run.info.run_name, []).append(run)
    return found


def curve(store, run, name: str) -> list[tuple[int, float]]:
    points = store.get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


@pytest.mark.slow
def test_mlflow_has_the_curves_of_tensorboard_and_a_resume_goes_on_with_its_run(store, tmp_path, command):
    write_pictures(tmp_path / "pictures")
    flags = [*TINY, "--data.root", tmp_path / "pictures", "--out", tmp_path / "digits"]
    both = ["--tracker", "tensorboard", "mlflow"]
    code, printed = command("run", "folder", *flags, *both)
    assert code == 0, printed
    runs = of_stages(store)
    assert {name: len(found) for name, found in runs.items()} == {"digits stage1": 1, "digits stage2": 1}
    ((stage1,), (stage2,)) = runs["digits stage1"], runs["digits stage2"]
    assert stage1.data.params["stage1.K"] == "16" and stage1.info.status == "FINISHED"
    run = tmp_path / "digits"
    for of_stage, name, folder, tag in (
        (stage1, "stage1/mse", run, "stage1/mse"),
        (stage1, "stage1/mse_validation", run / "validation", "stage1/mse"),
        (stage2, "stage2/bits_per_code_by_place", run / "by_place", "stage2/bits_per_code"),
    ):
        found, expected = curve(store, of_stage, name), events(folder, tag)
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected])
    names = [file.path for file in store.list_artifacts(stage2.info.run_id, "images")]
    assert any("stage2~samples" in name and name.endswith(".png") for name in names)

    code, printed = command("run", "folder", *flags, *both, "--stage2.steps", 8)
    assert code == 0, printed
    (again,) = of_stages(store)["digits stage2"]
    steps = [step for step, _ in curve(store, again, "stage2_loss/bits_per_code")]
    assert again.info.run_id == stage2.info.run_id and steps == [*range(1, 9)]
    assert set(json.loads((run / "trackers.json").read_text())) == {"stage1", "stage2"}


def test_without_tensorboard_there_are_no_event_files(store, tmp_path):
    tracker = Tracker(tmp_path / "run", "stage1", step=0, active=True)
    (tmp_path / "run").mkdir()
    tracker.settings(0, Config(tracker=("mlflow",)), "vqprior run")
    tracker.scalars(1, {"mse": 0.5, "loss/total": 1.0})
    tracker.flush()
    tracker.close()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["trackers.json"]
    ((found,),) = of_stages(store).values()
    assert found.data.metrics == {"stage1/mse": 0.5, "stage1_loss/total": 1.0}


@pytest.mark.slow
def test_wandb_keeps_curves_settings_and_pictures_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    run, ids = tmp_path / "digits", []
    run.mkdir()
    for start in (0, 2, 0):  # anew, going on, and anew once more
        tracker = Tracker(run, "stage1", step=start, active=True)
        tracker.settings(start, Config(tracker=("wandb",)), "vqprior run")
        tracker.scalars(start + 1, {"mse": 0.5})
        tracker.scalars(start + 1, {"mse": 0.6}, "validation")
        tracker.picture(start + 1, "reconstructions", write_grey())
        tracker.close()
        ids.append(json.loads((run / "trackers.json").read_text())["stage1"]["wandb"])
    assert ids[0] == ids[1] != ids[2]
    parts = run.glob(f"wandb/offline-run-*/run-{ids[0]}.wandb")  # of both starts
    written = b"".join(path.read_bytes() for path in parts)
    for word in (b"stage1/mse", b"stage1/mse_validation", b"stage1.quantizer", b"digits stage1"):
        assert word in written
    assert [*run.glob(f"wandb/offline-run-*-{ids[0]}/files/media/images/stage1/reconstructions_*.png")]


def write_grey():
    import torch

    return torch.full((8, 8, 3), 128, dtype=torch.uint8)


class Broken:
    """A service that takes nothing, and no more."""

    tracker = type("Run", (), {"id": "1"})

    def store_init_configuration(self, values: dict) -> None:
        assert values["stage1.K"] == 512 and values["tracker"] == "('wandb',)"

    def log(self, values: dict, step: int) -> None:
        raise ConnectionError("no answer\nfrom the server")

    finish = lambda self: self.log({}, 0)


def test_a_service_that_fails_later_is_told_of_once_and_training_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(services, "begin", lambda *arguments: Broken())
    made = Services(["wandb"], tmp_path, "stage1", resumed=False, config=Config(tracker=("wandb",)))
    made.scalars(1, {"stage1/mse": 1.0})
    made.scalars(2, {"stage1/mse": 1.0})
    made.close()
    words = "tracker wandb: no answer; what it does not take is missing there\n"
    assert capsys.readouterr().out == words


def test_a_service_that_cannot_begin_is_an_error(tmp_path, monkeypatch, command):
    def fails(*arguments: object) -> None:
        raise ValueError("No API key configured.\nUse wandb login")

    monkeypatch.setattr(services, "begin", fails)
    with pytest.raises(UserError, match=r"wandb cannot begin \(No API key configured.\).*--tracker tensorb"):
        Services(["wandb"], tmp_path, "stage1", resumed=False, config=Config())
    assert not [*tmp_path.iterdir()]


def test_a_missing_package_is_said_before_anything_is_made(tmp_path, command, monkeypatch):
    monkeypatch.setattr(services, "find_spec", lambda name: name != "mlflow" or None)
    pictures = write_pictures(tmp_path / "pictures")
    flags = [*TINY, "--data.root", pictures, "--out", tmp_path / "run", "--tracker", "tensorboard", "mlflow"]
    code, printed = command("run", "folder", *flags)
    assert code == 2 and "pip install 'vqprior[mlflow]'" in printed and not (tmp_path / "run").exists()
    code, printed = command("run", "folder", *flags[:-2], "tensorbaord")
    assert code == 2 and "tensorboard" in printed
