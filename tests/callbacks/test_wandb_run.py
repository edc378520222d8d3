"""What a Weights & Biases run holds, read back from its offline file."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Train, write_mask
from offline_runs import history, of_kind, records

from skinseg.compare import run as compare
from skinseg.config.compose import compose
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.evaluate import run as evaluate
from skinseg.pictures import Panel
from skinseg.scoring.overlap import OVERLAP_METRICS
from skinseg.tracking import pictures
from skinseg.tracking.logger import resolve_mode

RUN = ("logger=[wandb]", "callbacks=upload", "callbacks.panels.every_n_epochs=1")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")


def test_a_run_holds_all_of_it(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = train(
        *RUN,
        "tags=[a,b]",
        "group=g",
        "job_type=j",
        "notes=n",
        "name=shown",
        "trainer.max_epochs=2",
        "report=true",
    )
    found = records(folder)
    (run,) = of_kind(found, "run")[:1]
    assert (list(run.tags), run.run_group, run.job_type, run.notes, run.display_name) == (
        ["a", "b"],
        "g",
        "j",
        "n",
        "shown",
    )
    config = {
        item.key: json.loads(item.value_json)
        for record in [*of_kind(found, "config"), run.config]
        for item in record.update
    }
    assert config["data"]["batch_size"] == 4
    assert config["run_dir"] == str(folder), "resolved, not ${...}"

    values = history(found)
    expected = {"train/loss", "train/loss_step", "val/loss", "test/loss", "train/images_per_s", "lr-AdamW"}
    expected |= {f"{subset}/{metric}" for subset in ("val", "test") for metric in OVERLAP_METRICS}
    assert expected <= values.keys()
    assert values["train/images_per_s"] > 0

    panels = values["val/predictions"]
    assert panels["_type"] == "images/separated"
    assert [set(masks) for masks in panels["all_masks"]] == [{"truth", "prediction"}] * panels["count"]
    assert values["test/predictions"]["count"] == 12
    assert values["test/scores"]["_type"] == "table-file"
    assert values["test/scores"]["nrows"] == values["test/worst"]["nrows"] == 8
    worst = json.loads(next(folder.rglob("media/table/test/worst*.json")).read_text())
    assert worst["columns"][:2] == ["image", "image_id"]
    dice = [row[worst["columns"].index("dice")] for row in worst["data"]]
    assert dice == sorted(dice)

    artifacts = [artifact for artifact in of_kind(found, "artifact") if artifact.type == "model"]
    assert ["best" in artifact.aliases for artifact in artifacts] == [True]
    (evaluation,) = [artifact for artifact in of_kind(found, "artifact") if artifact.type == "evaluation"]
    names = {entry.path for entry in evaluation.manifest.contents}
    assert {"report.html", "scores.csv", "evaluation.json", "MODEL_CARD.md"} <= names
    assert "split.csv" not in names
    assert values["report"]["_type"] == "html-file"
    assert of_kind(found, "exit")[0].exit_code == 0
    assert f"{sys.executable} -m wandb sync {folder.resolve()}/wandb/offline-run-" in caplog.text


def test_a_crashed_run_is_marked(train: Train, tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match="The loss is nan"):
        train(*RUN, "optimizer.lr=1e30", "trainer.gradient_clip_val=null", "trainer.max_epochs=50")
    assert of_kind(records(tmp_path / "run"), "exit")[0].exit_code == 1


@pytest.mark.slow
def test_a_resumed_run_continues_its_run(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train(*RUN, "trainer.max_epochs=2", "+callbacks.stop={_target_: conftest.InterruptAt, step: 9}")
    stopped = records(tmp_path / "run")
    assert of_kind(stopped, "exit")[0].exit_code == 130
    again = train(
        *RUN, "trainer.max_epochs=2", f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", run_dir="again"
    )
    first, second = (of_kind(found, "run")[0].run_id for found in (stopped, records(again)))
    assert first == second


@pytest.mark.slow
def test_an_evaluation_and_a_comparison_are_artifacts(tmp_path: Path) -> None:
    for folder, shift in (("truth", 0), ("a", 1), ("b", 2)):
        for number in range(6):
            write_mask(tmp_path / folder / f"ISIC_{number:07d}_segmentation.png", shift=shift)
    wandb = ["logger=wandb", "group=night"]
    for name in ("a", "b"):
        what = [f"predictions={tmp_path / name}", f"truth={tmp_path / 'truth'}", "draws=200", "workers=0"]
        evaluate(compose([*what, *wandb, f"run_dir={tmp_path / 'done' / name}"], "evaluate"))
    compare(
        compose([f"runs={tmp_path / 'done'}", "draws=200", *wandb, f"run_dir={tmp_path / 'both'}"], "compare")
    )
    for folder, job, kind in (("done/a", "evaluate", "evaluation"), ("both", "compare", "comparison")):
        found = records(tmp_path / folder)
        (run,) = of_kind(found, "run")[:1]
        assert (run.run_group, run.job_type) == ("night", job)
        (artifact,) = of_kind(found, "artifact")
        assert artifact.type == kind
        names = {entry.path for entry in artifact.manifest.contents}
        assert {"report.html", f"{kind}.json"} <= names
        assert names & {"scores.csv", "ranking.csv"}
        assert history(found)["report"]["_type"] == "html-file"
        assert of_kind(found, "exit")[0].exit_code == 0


@pytest.fixture
def server() -> Iterator[str]:
    """A host that answers, with 404 to everything."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


class TestMode:
    def test_offline_without_a_key(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_BASE_URL", server)
        assert resolve_mode("auto") == "offline"

    def test_online_with_a_key_and_a_host(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_BASE_URL", server)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        assert resolve_mode("auto") == "online"

    def test_offline_with_a_key_and_no_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        assert resolve_mode("auto") == "offline"

    def test_the_environment_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_MODE", "disabled")
        assert resolve_mode("online") == "disabled"
        monkeypatch.setenv("WANDB_MODE", "sometimes")
        with pytest.raises(SkinsegError, match="WANDB_MODE is 'sometimes'"):
            resolve_mode("auto")

    def test_asked_for(self) -> None:
        assert resolve_mode("online") == "online"


def test_photographs_of_several_sizes_are_logged_as_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[str, list[Any]] = {}
    run = type("Run", (), {"log": lambda _, content: logged.update(content)})()
    monkeypatch.setattr(pictures, "runs", lambda _: [run])
    panels = []
    for height, width in ((30, 40), (40, 30)):
        mask = np.ones((height, width), bool)
        panels.append(Panel("id", np.full((height, width, 3), 200, np.uint8), mask, mask, "caption"))
    pictures.log_mask_images([], "test/predictions", panels, 0)
    assert [image.image.size for image in logged["test/predictions"]] == [(40, 40), (40, 40)]
    pixels = np.asarray(logged["test/predictions"][0].image)
    assert (pixels[:30] == 200).all()
    assert (pixels[30:] == 0).all()
