"""Sweeps of Weights & Biases: files that its engine takes, and the commands that its agents make of them."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb.wandb_agent
import yaml
from conftest import REPOSITORY, TINY, WriteHam
from offline_runs import history, of_kind, records
from wandb.sdk.launch.sweeps.utils import load_sweep_config

from skinseg.config.check import check
from skinseg.config.compose import compose, plain

FILES = sorted((REPOSITORY / "experiments").glob("*/wandb_sweep.yaml"))
# Its own numpy is older than ours; the schema is a file of it.
ENGINE = ("sweeps==0.3.0",)
VALIDATE = """
import importlib.metadata, json, sys
import jsonschema

(schema,) = (f for f in importlib.metadata.files("sweeps") if f.name == "schema.json")
validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
for error in validator.iter_errors(json.load(sys.stdin)):
    print(error.json_path, error.message)
"""


class Recorded:
    """Stands in for the process that an agent starts."""

    commands: list[list[str]]

    def __init__(self, command: list[str], **_: Any) -> None:
        Recorded.commands.append(command)


def commands_of(path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[tuple[Any, list[str]]]:
    """Yields, for each point of the grid, its parameters and the command that an agent makes of them."""
    sweep = load_sweep_config(str(path))
    values = {name: node["values"] for name, node in sweep["parameters"].items()}
    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", Recorded)
    monkeypatch.setenv("WANDB_DIR", str(folder))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them for good
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    agent = wandb.wandb_agent.Agent(api=None, queue=None, sweep_id="sweep1")
    agent._sweep_command = sweep["command"]
    for number, point in enumerate(itertools.product(*values.values())):
        chosen = dict(zip(values, point, strict=True))
        Recorded.commands = []
        agent._command_run(
            {
                "run_id": f"run{number}",
                "program": sweep["program"],
                "args": {name: {"value": value} for name, value in chosen.items()},
            }
        )
        yield chosen, Recorded.commands[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_agents_start_what_the_study_is_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sweep = load_sweep_config(str(path))
    trained = set()
    for chosen, command in commands_of(path, monkeypatch, tmp_path):
        assert command[1:4] == ["python", "-m", "skinseg.train"]
        overrides = [word for word in command[4:] if not word.startswith("hydra.")]
        if overrides[0] == "--config-dir":
            overrides[:2] = [f"hydra.searchpath=[file://{REPOSITORY / overrides[1]}]"]
        (folder,) = (word for word in command if word.startswith("hydra.run.dir="))
        assert folder.endswith("${oc.env:WANDB_SWEEP_ID}/${oc.env:WANDB_RUN_ID}")
        config = plain(compose([*overrides, f"run_dir={tmp_path}"]))
        check(config)
        assert config["group"] == sweep["name"] == path.parent.name
        assert (config["monitor"], f"{config['mode']}imize") == (
            sweep["metric"]["name"],
            sweep["metric"]["goal"],
        )
        assert "wandb" in config["logger"]
        assert config["seed"] == chosen["seed"]
        trained.add(json.dumps([config["model"], config["loss"], config["seed"]], sort_keys=True))
    values = {name: node["values"] for name, node in sweep["parameters"].items()}
    assert len(trained) == math.prod(map(len, values.values()))
    for study in path.parent.glob("sweep/study.yaml"):
        params = yaml.safe_load(study.read_text())["hydra"]["sweeper"]["params"]
        assert values == {name: yaml.safe_load(f"[{of}]") for name, of in params.items()}


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_two_of_the_commands_train(
    path: Path, monkeypatch: pytest.MonkeyPatch, write_ham: WriteHam, tmp_path: Path
) -> None:
    """The rest of each command makes it a small one."""
    small = [word for word in TINY if not word.startswith(("logger", "model"))]
    root, found = write_ham(20), {}
    for number, (chosen, command) in enumerate(itertools.islice(commands_of(path, monkeypatch, tmp_path), 2)):
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "WANDB_MODE": "offline",
            "WANDB_SWEEP_ID": "sweep1",
            "WANDB_RUN_ID": f"run{number}",
        }
        # Agents are started at the root of the repository, this one elsewhere.
        command = [str(REPOSITORY / word) if word.startswith("experiments/") else word for word in command]
        done = subprocess.run(
            [sys.executable, *command[2:], *small, "model.encoder_weights=null", f"data.root={root}"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        folder = tmp_path / f"outputs/wandb/sweep1/run{number}"
        summary = json.loads((folder / "summary.json").read_text())
        logged = records(folder)
        assert [run.run_id for run in of_kind(logged, "run")][:1] == [f"run{number}"]
        # What the sweep takes for the result is the score that chose the checkpoint.
        assert history(logged)["val/dice"] == pytest.approx(summary["objective"]["value"])
        found[number] = chosen
    assert found[0] != found[1]


@pytest.mark.slow
def test_the_engine_takes_the_files(tmp_path: Path) -> None:
    """Against the schema of W&B's sweep engine, in an environment of its own."""
    venv.create(tmp_path / "engine", with_pip=True)
    python = tmp_path / "engine" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    for packages in (["--no-deps", *ENGINE], ["jsonschema"]):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    sweeps = [load_sweep_config(str(path)) for path in FILES]
    wrong = {**sweeps[0], "method": "girdd"}
    for content, problems in (*((sweep, "") for sweep in sweeps), (wrong, "$.method")):
        done = subprocess.run(
            [python, "-c", VALIDATE], input=json.dumps(content), capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(problems)
        assert bool(done.stdout) == bool(problems), done.stdout
