"""Sweeps: planned before the first job, each job a process, gone on with after a kill, compared at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from skinseg.config import config_dir
from skinseg.multirun import plan_grid
from skinseg.sweep.jobs import Plan

SWEEPS = sorted(path.stem for path in (config_dir() / "sweep").glob("*.yaml"))
STUDIES = sorted(path.parents[1].name for path in (REPOSITORY / "experiments").glob("*/sweep/study.yaml"))


@pytest.fixture(autouse=True)
def hydra_as_it_was() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def plan(*overrides: str, folder: Path, study: str | None = None) -> Plan:
    """Plans a sweep in this process as the command does."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        search = [] if study is None else [f"hydra.searchpath=[file://{REPOSITORY / 'experiments' / study}]"]
        fixed = [word for word in overrides if "," not in word or "[" in word]
        cfg = compose("train", [*fixed, *search, f"hydra.sweep.dir={folder}"], return_hydra_config=True)
        cfg.hydra.overrides.task = list(overrides)
        cfg.hydra.job.config_name = "train"
        return plan_grid(cfg)


@pytest.mark.parametrize("name", SWEEPS)
def test_named_sweep_is_checked_whole(name: str, tmp_path: Path) -> None:
    """Each of its jobs is composed and compared with the constructors."""
    found = plan("model.encoder_weights=null", f"+sweep={name}", folder=tmp_path / "sweep")
    assert len(found.jobs) == len({job.fingerprint for job in found.jobs}) > 1
    assert all(job.words for job in found.jobs)
