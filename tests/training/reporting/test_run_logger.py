"""What is kept of a run while it goes: curves without doubled steps, a log, panels, a card."""

import json
import math
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import watching
from lightning_fabric import Fabric
from PIL import Image
from small import random_windows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from meduet_training.data.sources.windows import WindowSource
from meduet_training.engine.callbacks import NullCallback
from meduet_training.reporting.card import read_run_card
from meduet_training.reporting.run_logger import log_run
from meduet_training.runtime.row_log import read_rows
from meduet_training.runtime.signals import Stopped
from napari_meduet.errors import InputError

NOBODY = 65534


def events(folder) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def points(folder, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


def test_tensorboard_shows_what_the_log_holds(tmp_path):
    watching.run(tmp_path / "run").close("finished")
    rows = read_rows(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows] == [0, 20, 40, 60]
    assert points(tmp_path / "run", "loss/total") == [(0, 100), (20, 80), (40, 60), (60, 40)]
    found = events(tmp_path / "run")
    assert set(found.Tags()["scalars"]) == set(rows[0]) - {"step"}
    for name in found.Tags()["scalars"]:
        assert [event.value for event in found.Scalars(name)] == pytest.approx([row[name] for row in rows])
    assert rows[1]["time/step_seconds"] == pytest.approx(0.25)
    assert rows[1]["time/data_wait_seconds"] == pytest.approx(0.025)
    assert rows[1]["time/samples_per_second"] == pytest.approx(watching.BATCH / 0.25)
    assert rows[2]["features/style"] == 3.0


def test_a_run_that_goes_on_doubles_no_step(tmp_path):
    """Killed after step 50, it goes on from a checkpoint of 30 steps."""
    folder = tmp_path / "run"
    watching.run(folder, last=50, validate_after=(30, 50))
    (folder / "log.jsonl").open("a").write('{"step": 51, "lo')
    watching.run(folder, first=30, validate_after=(50,)).close("finished")
    assert [step for step, _ in points(folder, "loss/total")] == [0, 20, 40, 60]
    assert [row["step"] for row in read_rows(folder / "log.jsonl")] == [0, 20, 40, 60]
    assert [row["step"] for row in read_rows(folder / "validation.jsonl")] == [30, 50]
    assert [step for step, _ in points(folder, "validation/reconstruction")] == [29, 49]
    card = read_run_card(folder)
    assert (card.resumed, card.steps_done) == (1, watching.STEPS)
    assert [(each.first_step, each.last_step) for each in card.sessions] == [(0, 49), (30, 60)]
    assert [each.ended is None for each in card.sessions] == [True, False]


def test_a_validation_leaves_pictures_and_figures(tmp_path):
    folder = tmp_path / "run"
    watching.run(folder, last=19, validate_after=(20,)).close("stopped")
    picture = Image.open(folder / "panels" / "step-00000020-CT.png")
    found = events(folder)
    shown = found.Images("panel/CT")
    assert [(each.step, each.width, each.height) for each in shown] == [(19, *picture.size)]
    (row,) = read_rows(folder / "validation.jsonl")
    assert row["reconstruction"] > 0
    probe = row["factors"]["style"]["probe"]
    assert probe["chance"] == pytest.approx(1 / 3)
    assert points(folder, "probe/style") == [(19, pytest.approx(probe["accuracy"]["value"]))]
    assert (row["num_samples"], row["num_patients"], len(row["extractor_sha256"])) == (24, 6, 64)


def test_looking_on_changes_nothing(tmp_path):
    """Weights, mode and random numbers are as if nobody had looked."""
    looking, network = watching.watch(tmp_path / "run"), watching.objective().train()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(7)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    looking.on_validation(1, network)
    looking.on_end(1, network)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(module.training for module in network.student.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_number_that_is_not_finite_is_null_and_a_skipped_step_names_its_scans(tmp_path):
    looking = watching.watch(tmp_path / "run")
    looking.on_step(watching.record(0, total=math.nan))
    looking.on_skip(1, ["a1b2", "c3d4"])
    looking.close("stopped")
    rows = read_rows(tmp_path / "run" / "log.jsonl")
    assert rows[0]["loss/total"] is None
    assert rows[1] == {"step": 1, "skipped": ["a1b2", "c3d4"]}


def test_the_end_leaves_factors_and_a_report(tmp_path):
    folder = tmp_path / "run"
    looking = watching.run(folder)
    looking.on_end(watching.STEPS, watching.objective())
    assert not (folder / "report.html").exists()
    looking.close("finished")
    factors = json.loads((folder / "factors" / "factors.json").read_text())
    assert factors["domains"] == {"site 0": 8, "site 1": 8, "site 2": 8}
    assert (folder / "factors" / "style.png").is_file()
    assert (folder / "report.html").is_file()


def test_a_pretext_without_content_and_style_is_watched_without_panels(tmp_path):
    looking = watching.watch(tmp_path / "run")
    looking.on_step(watching.record(0))
    for look in (looking.on_validation, looking.on_end):
        look(1, torch.nn.Linear(2, 2))
    looking.close("finished")
    assert not (tmp_path / "run" / "panels").exists()
    assert "No panel was drawn" in (tmp_path / "run" / "report.html").read_text()


# --- what a command gets


@pytest.fixture
def given():
    """The arguments of `log_run` after the folder."""
    fabric = Fabric(accelerator="cpu", devices=1)
    objective = SimpleNamespace(total_steps=watching.STEPS)
    training = SimpleNamespace(objective=objective, network=None, batch=watching.BATCH, seed=0)
    source = WindowSource(random_windows(), seed=0)
    return fabric, training, source, watching.tokenizer(), {"batch": watching.BATCH}


def looked_at(folder, given):
    fabric, *others = given
    return log_run(fabric, folder, *others)


def test_a_source_says_what_it_is_validated_on(tmp_path, given):
    with looked_at(tmp_path / "run", given) as looking:
        looking.on_step(watching.record(0))
        assert read_run_card(tmp_path / "run").status == "running"
    card = read_run_card(tmp_path / "run")
    assert card.status == "finished"
    assert card.data.sha256 == given[2].sha256
    assert card.data.validation == {"site a": 3, "site b": 3}
    assert "turned and mirrored" in card.data.validation_note


def test_a_source_that_holds_nothing_back_is_trained_on_and_says_so(tmp_path, given, monkeypatch, capsys):
    monkeypatch.setattr(given[2], "validation_crops", lambda count, seed: watching.crops(0))
    with looked_at(tmp_path / "run", given) as looking:
        looking.on_step(watching.record(0))
        for look in (looking.on_validation, looking.on_end):
            look(1, watching.objective())
    card = read_run_card(tmp_path / "run")
    assert (card.status, card.data.validation) == ("finished", {})
    assert "No scan is held out" in card.data.validation_note
    assert "No scan is held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [(Stopped("enough"), "stopped", None), (ValueError("patient Smith"), "failed", "ValueError")],
)
def test_the_card_says_how_a_run_ended(tmp_path, given, error, status, failure):
    def run() -> None:
        with looked_at(tmp_path / "run", given) as looking:
            looking.on_step(watching.record(0))
            raise error

    with pytest.raises(type(error)):
        run()
    card = read_run_card(tmp_path / "run")
    assert (card.status, card.failure, card.sessions[0].ended is None) == (status, failure, False)
    assert "Smith" not in (tmp_path / "run" / "run.json").read_text()


def test_a_run_that_is_refused_leaves_the_folder_as_it_was(tmp_path, given):
    watching.run(tmp_path / "run", last=20).close("stopped")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError), looked_at(tmp_path / "run", given):
        raise InputError("it belongs to a run with other settings")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_only_the_first_process_looks(tmp_path, given):
    second = SimpleNamespace(is_global_zero=False)
    with looked_at(tmp_path / "run", (second, *given[1:])) as looking:
        assert isinstance(looking, NullCallback)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def without_rights():
    """A folder that this process may not write to, whoever runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="read-only-"))  # pytest's own folders are closed to others
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.rmdir()


def test_a_read_only_folder_is_told_in_one_sentence_before_any_step(without_rights, given):
    with pytest.raises(InputError) as refusal, looked_at(without_rights, given):
        pytest.fail("the run began")
    assert str(refusal.value).startswith(
        f"{without_rights.name}: this folder is not writable (permission denied)"
    )


def test_curves_that_cannot_be_written_are_told_in_one_sentence(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "tensorboard").write_text("")
    looking = watching.watch(folder)
    with pytest.raises(InputError, match="tensorboard: this folder cannot be created") as refusal:
        looking.on_step(watching.record(0))
    assert str(refusal.value).endswith("(File exists). Choose another one.")


def test_a_validation_that_a_kill_prevented_is_missed_and_one_of_a_later_step_is_not_counted(tmp_path):
    """The reason to end is asked of the rows up to the step that a run goes on from."""
    folder = tmp_path / "run"
    looking = watching.run(folder, last=50, validate_after=(30, 50))
    asked = []
    looking._validation.reason_to_end = lambda rows: asked.append([row["step"] for row in rows]) or "enough"
    assert [looking.lacks_validation(step) for step in (20, 30, 50)] == [True, False, False]
    assert looking.reason_to_end(40) == "enough"
    assert asked == [[30]]
    assert not watching.watch(tmp_path / "other", validation=None).lacks_validation(30)
