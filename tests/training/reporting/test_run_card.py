"""The card: code, machine and data of a run, its sessions, and no path."""

import json
from pathlib import Path

import torch
import watching

import meduet_training
from meduet_training.reporting import card as run_card
from meduet_training.reporting.card import (
    code_version,
    new_session,
    read_run_card,
    start_session,
    without_paths,
)

ROOT = Path(__file__).parents[3]


def test_a_session_says_where_it_ran():
    session = new_session(processes=4)
    assert session.packages["torch"] == torch.__version__
    assert session.processes == 4
    assert session.devices
    assert session.ended is None


def test_a_card_comes_back_as_it_was_written(tmp_path):
    first = start_session(tmp_path, watching.card(), new_session(1))
    assert read_run_card(tmp_path) == first
    second = start_session(tmp_path, watching.card(), new_session(2))
    assert [session.processes for session in read_run_card(tmp_path).sessions] == [1, 2]
    data = json.loads((tmp_path / run_card.CARD).read_text())
    assert (data["resumed"], data["steps_done"]) == (second.resumed, second.steps_done) == (1, 0)


def test_paths_stay_off_the_card():
    config = {"data": {"cache": Path("/x/SMITH_JOHN"), "seed": 1}, "rates": (1.0, float("inf"))}
    assert without_paths(config) == {"data": {"seed": 1}, "rates": [1.0, None]}


def test_a_checkout_that_was_changed_is_dirty(tmp_path, monkeypatch):
    said = {"log": "c0ffee", "status": ""}
    monkeypatch.setattr(run_card, "_git", lambda folder, word, *words: said[word])
    assert code_version() == ("c0ffee", False)
    said["status"] = " M core/siqc.py"
    assert code_version() == ("c0ffee", True)
    said["log"] = None
    assert code_version() == (None, None)


def test_code_outside_a_checkout_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(meduet_training, "__file__", str(tmp_path / "__init__.py"))
    assert code_version() == (None, None)
