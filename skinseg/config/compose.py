"""Where the configuration lies, and how it is composed."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from skinseg.config.schema import Plain
from skinseg.config.targets import (
    first_line,
)
from skinseg.errors import ConfigurationError, SkinsegError
from skinseg.quoting import literal


def config_dir() -> Path:
    """Returns the folder that holds `train.yaml`: in a checkout `conf/`, in a wheel `skinseg/conf/`.

    Raises:
        SkinsegError: Neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise SkinsegError(
        f"No configuration: expected train.yaml in {package / 'conf'} or {package.parent / 'conf'}."
    )


def options_of(group: str) -> list[str]:
    """Returns the names of a group's options, sorted; of what is no group there are none."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def for_none(group: str) -> str:
    """Says how to choose nothing of a group, or which options there are where that cannot be."""
    options = options_of(group)
    return f"for none: {group}=none" if "none" in options else f"known: {', '.join(options)}"


def compose(overrides: Sequence[str] = (), name: str = "train") -> DictConfig:
    """Composes the configuration as the command line would.

    Args:
        overrides: Hydra overrides, e.g. ["+experiment=demo", "seed=1"]. `run_dir` must be among them, since
            only a command has a run folder.
        name: The command, whose configuration is `conf/<name>.yaml`.

    Returns:
        The composed configuration.
    """
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return hydra_compose(name, list(overrides))


def template_of(name: str) -> Plain:
    """Returns what stands in `conf/<name>.yaml` itself; nothing is composed or filled in."""
    return typing.cast(Plain, OmegaConf.to_container(OmegaConf.load(config_dir() / f"{name}.yaml")))


def plain(cfg: DictConfig) -> Plain:
    """Returns the configuration as plain values, every interpolation resolved.

    Raises:
        SkinsegError: A value is missing or an interpolation leads nowhere.
    """
    if missing := missing_keys(cfg):
        raise ConfigurationError([f"{key}: missing; add {key}=<value>." for key in missing])
    try:
        resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise incomplete(error) from error
    return typing.cast(Plain, resolved)


def yaml_of(config: Plain) -> str:
    """Writes plain values as YAML that Hydra can read; texts that look like interpolations stay texts."""
    return OmegaConf.to_yaml(OmegaConf.create(literal(config)))


def incomplete(error: Exception) -> SkinsegError:
    """Returns a message for an error of OmegaConf or Hydra: a value that leads nowhere, or cannot be read."""
    key = getattr(error, "full_key", None)
    where = f" ({key})" if key else ""
    return SkinsegError(f"The configuration is incomplete{where}: {first_line(error)}.")


def missing_keys(cfg: DictConfig) -> list[str]:
    """Returns the keys that have no value yet (`???`), sorted; none where an interpolation leads nowhere."""
    try:
        return sorted(OmegaConf.missing_keys(cfg))
    except OmegaConfBaseException:
        return []
