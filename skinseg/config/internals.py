"""All that touches Hydra's insides, which its next version may have otherwise."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from skinseg.errors import SkinsegError
from skinseg.quoting import literal
from skinseg.run.writing import replacing

GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""The sweeper that takes all combinations."""
IN_TURN = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""The launcher that runs one job after the other."""


def option_parser() -> argparse.ArgumentParser:
    """Returns what reads Hydra's own options of a command line."""
    return get_args_parser()


@contextmanager
def hydra_config_kept() -> Iterator[DictConfig]:
    """Gives what Hydra has composed of the command line, and puts it back after the block has changed it."""
    instance = HydraConfig.instance()
    before: Any = instance.cfg
    try:
        yield before
    finally:
        instance.cfg = before


@contextmanager
def hydra_free() -> Iterator[None]:
    """Frees Hydra, which composes for one caller at a time, as long as the block lasts."""
    hydra = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:  # composing may have put another instance there
        GlobalHydra.instance().hydra = hydra


def compose_job(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Composes a job's configuration, with Hydra's own node, as a launcher would.

    Args:
        config: What Hydra composed of the command line.
        overrides: All overrides of the job.

    Raises:
        HydraException: An override is refused, or an OmegaConfBaseException.
    """
    return GlobalHydra.instance().config_loader().load_sweep_config(config, list(overrides))


def _as_planned(path: Path, digest: str, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
    """Returns a planned configuration as Hydra's loader would compose it."""
    cfg = OmegaConf.create(_all_as_planned(path, digest)[tuple(sweep_overrides)])
    assert isinstance(cfg, DictConfig)
    hydra = OmegaConf.structured(HydraConf)
    with open_dict(hydra):
        hydra.merge_with(cfg.hydra)
    cfg.hydra = hydra
    OmegaConf.set_struct(cfg, True)
    OmegaConf.copy_cache(from_config=master_config, to_config=cfg)  # the time at which the sweep began
    return cfg


@cache
def _all_as_planned(path: Path, digest: str) -> dict[tuple[str, ...], str]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise SkinsegError(f"{path} was changed since the sweep was planned; start it again.")
    return {tuple(overrides): text for overrides, text in json.loads(content)}


def overrides_of_jobs(config: DictConfig) -> list[list[str]]:
    """Returns the overrides of each job of a grid, as Hydra's own sweeper will make them.

    Args:
        config: What Hydra composed, with its own node, without the swept keys. The sweeper's own parameters
            become overrides in it.
    """
    # Read, they are resolved; a ${...} that is left is a text.
    params = [f"{key}={literal(value)}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    words = [*params, *given_overrides(config)["task"]]
    with read_write(config.hydra), open_dict(config.hydra):
        # The sweeper would read its parameters twice, and fill in what reads ${...} then.
        config.hydra.sweeper.params = {}
        config.hydra.overrides.task = words
    overrides = parser.parse_overrides(words)
    return [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def take_as_planned(composed: Mapping[tuple[str, ...], DictConfig], path: Path) -> None:
    """Lets the sweeper and the launchers take these configurations instead of composing them again.

    They would read `conf/` at each job's turn: a file that is edited by then would be another job, and a
    broken one the end of the sweep. A launcher asks in processes of its own, to which Hydra sends its loader
    with each job: so the loader holds only where they are, and what they have to be.

    Args:
        composed: What `compose_job` returned, by the overrides of the job.
        path: The file that they are written to.
    """
    texts = [[overrides, OmegaConf.to_yaml(cfg)] for overrides, cfg in composed.items()]
    content = json.dumps(texts).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    loader: Any = GlobalHydra.instance().config_loader()
    loader.load_sweep_config = partial(_as_planned, path, hashlib.sha256(content).hexdigest())


class _ReadOnce(CachingConfigRepository):
    """Configuration files as they were at their first reading."""

    def __deepcopy__(self, memo: object) -> _ReadOnce:
        return self

    def load_config(self, config_path: str) -> Any:
        return copy.deepcopy(super().load_config(config_path))


def read_files_once() -> None:
    """Keeps later edits of files in `conf/` out of the trials: all that they need is read for the check."""
    loader: Any = GlobalHydra.instance().config_loader()
    loader.repository = _ReadOnce(loader.repository)


def given_overrides(config: DictConfig) -> dict[str, list[str]]:
    """Returns the overrides of the command line as they were written: an interpolation is the job's.

    Args:
        config: What Hydra composed of it.

    Returns:
        By what they are of: "task" and "hydra".
    """
    given: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    return {kind: list(given[kind]) for kind in ("task", "hydra")}


def as_the_job_sees_it(config: DictConfig, folder: Path) -> DictConfig:
    """Returns a copy without Hydra's node, and lets `${hydra:...}` find what it will find in the job.

    Args:
        config: What Hydra composed, with its own node. It becomes that of `HydraConfig`.
        folder: Folder of the job's run.
    """
    config = copy.deepcopy(config)
    with read_write(config), read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    own = copy.deepcopy(config)
    with read_write(own), open_dict(own):
        del own["hydra"]
    return own
