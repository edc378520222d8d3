"""The view of Weights & Biases: what is in it, that runs log it, and what a user is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Train
from offline_runs import history, records

from skinseg.config.compose import compose
from skinseg.dashboard import run
from skinseg.errors import SkinsegError
from skinseg.tracking import dashboard

VIEW = ("entity=us", "group=loss_seeds", "save=false")


@pytest.fixture
def workspaces() -> None:
    pytest.importorskip(
        "wandb_workspaces", reason="no wandb-workspaces here: pip install 'skinseg[dashboard]'"
    )


def panels(view: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The panels of each section."""
    sections = view["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


@pytest.mark.slow
@pytest.mark.usefixtures("workspaces")
def test_a_view_of_what_runs_log(train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each key that is drawn is one that a run has."""
    view = run(compose([*VIEW, f"run_dir={tmp_path}"], "dashboard"))
    assert json.loads((tmp_path / "view.json").read_text()) == view
    found = panels(view)
    assert list(found) == ["Learning curves", "Runs by rank", "Settings", "Masks", "Worst images"]
    kinds = {name: [panel["viewType"] for panel in of] for name, of in found.items()}
    assert kinds["Learning curves"] == ["Run History Line Plot"] * 4
    assert kinds["Runs by rank"] == ["Bar Chart", "Weave"]
    assert kinds["Settings"] == ["Parallel Coordinates Plot", "Parameter Importance"]
    assert kinds["Masks"] == ["Media Browser"] * 2
    assert kinds["Worst images"] == ["Weave"]

    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = train("logger=[wandb]", "callbacks.panels.every_n_epochs=1", run_dir="run")
    logged = history(records(folder))
    curves = [panel["config"]["metrics"] for panel in found["Learning curves"]]
    pictures = [panel["config"]["mediaKeys"] for panel in found["Masks"]]
    assert curves == [[key] for key in dashboard.CURVES]
    assert pictures == [[key] for key in dashboard.PICTURES]
    drawn = {*dashboard.CURVES, *dashboard.PICTURES, dashboard.SCORES, dashboard.WORST, "test/dice"}
    assert drawn | {panel["config"]["xAxis"] for panel in found["Learning curves"]} <= logged.keys()
    assert logged[dashboard.SCORES]["_type"] == logged[dashboard.WORST]["_type"] == "table-file"
    for name, key in (("Runs by rank", dashboard.SCORES), ("Worst images", dashboard.WORST)):
        assert json.dumps(key) in json.dumps(found[name][-1])


@pytest.mark.usefixtures("workspaces")
def test_runs_of_the_group_by_rank(tmp_path: Path) -> None:
    overrides = [*VIEW, "columns=[seed,optimizer.lr]", "metric=test/jaccard", f"run_dir={tmp_path}"]
    view = run(compose(overrides, "dashboard"))
    (runs,) = view["section"]["runSets"]
    assert '{"section": "run", "name": "group"}' in json.dumps(runs["filters"])
    assert "loss_seeds" in json.dumps(runs["filters"])
    (order,) = runs["sort"]["keys"]
    assert order == {"key": {"section": "summary", "name": "test/jaccard"}, "ascending": False}
    columns = panels(view)["Settings"][0]["config"]["columns"]
    names = ["config:seed.value", "config:optimizer.value.lr", "summary:test/jaccard"]
    assert [column["accessor"] for column in columns] == names
    assert runs["runFeed"]["columnPinned"].keys() == {"run:displayName", *names}


@pytest.mark.usefixtures("workspaces")
def test_without_a_key_nothing_is_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    with pytest.raises(SkinsegError, match="wandb login"):
        run(compose([*VIEW, "save=true", f"run_dir={tmp_path}"], "dashboard"))


@pytest.mark.usefixtures("workspaces")
def test_of_a_loss_the_smallest_comes_first(tmp_path: Path) -> None:
    view = run(compose([*VIEW, "metric=val/loss", f"run_dir={tmp_path}"], "dashboard"))
    assert [order["ascending"] for order in view["section"]["runSets"][0]["sort"]["keys"]] == [True]


def test_what_the_server_refuses_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def save(self) -> None:
            raise Exception("no such entity")

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with pytest.raises(SkinsegError, match="did not save the view: no such entity"):
        dashboard.save(Refused())


def test_without_the_package_a_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(SkinsegError, match=r"pip install 'skinseg\[dashboard\]'"):
        run(compose([*VIEW, f"run_dir={tmp_path}"], "dashboard"))


def test_the_command_names_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "skinseg.dashboard", "entty=us"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "entty: unknown key" in done.stderr
    assert "did you mean entity?" in done.stderr
    assert "group: missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()
