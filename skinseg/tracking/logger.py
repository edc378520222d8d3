"""The logger of Weights & Biases, and the runs of this process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch.loggers import Logger, WandbLogger

from skinseg.errors import SkinsegError
from skinseg.online import reachable
from skinseg.quoting import command_line
from skinseg.run.writing import first_rank

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]


def wandb_logger(
    save_dir: str,
    *,
    project: str = "skinseg",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
    notes: str | None = None,
    mode: Mode = "auto",
    id: str | None = None,
) -> WandbLogger:
    """Starts a run, or continues the run `id`.

    Args:
        save_dir: Folder of the local files.
        project: Project's name.
        entity: User or team. None: the account's default.
        name: Shown name.
        group: Runs that belong together.
        job_type: What the run does.
        tags: Words to find it by.
        notes: A sentence.
        mode: "auto" is online with an API key and a reachable host, else offline. The environment variable
            WANDB_MODE wins over all.
        id: Id of an earlier run, to continue it.

    Returns:
        Lightning's logger, its run started.

    Raises:
        SkinsegError: An unknown mode, or `mode="online"` and it cannot be.
    """
    import wandb

    if not first_rank():
        return WandbLogger(save_dir=save_dir)

    def start(mode: Any) -> WandbLogger:
        run = wandb.init(
            dir=save_dir,
            project=project,
            entity=entity,
            name=name,
            id=id,
            resume="allow",
            group=group,
            job_type=job_type,
            tags=list(tags),
            notes=notes,
            mode=mode,
            settings=wandb.Settings(silent=True, init_timeout=30),
        )
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return WandbLogger(save_dir=save_dir, experiment=run)

    mode_now = resolve_mode(mode)
    try:
        return start(mode_now)
    except wandb.errors.Error as error:
        if mode != "auto" or mode_now != "online":
            raise SkinsegError(f"logger.wandb.mode={mode_now}: Weights & Biases refused: {error}") from error
        log.warning("Weights & Biases refused (%s); logging offline.", str(error).splitlines()[0])
        return start("offline")


def resolve_mode(mode: Mode) -> str:
    """Returns "online", "offline" or "disabled"; see `wandb_logger`."""
    wanted = os.environ.get("WANDB_MODE", "").lower() or mode
    if wanted == "dryrun":  # W&B's old word
        wanted = "offline"
    if wanted not in (*get_args(Mode), "shared"):
        raise SkinsegError(
            f"logger.wandb.mode or WANDB_MODE is {wanted!r}; expected one of {get_args(Mode)}."
        )
    if wanted != "auto":
        return wanted
    return "online" if has_key() and reachable(_host()) else "offline"


def _host() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def has_key() -> bool:
    """Returns whether there is an API key, in the environment or as `wandb login` has left it."""
    from requests.utils import get_netrc_auth

    return bool(os.environ.get("WANDB_API_KEY")) or get_netrc_auth(_host()) is not None


def runs(loggers: Iterable[Logger]) -> list[Any]:
    """Returns the W&B runs among the loggers."""
    return [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]


def run_id(loggers: Iterable[Logger]) -> str | None:
    """Returns the id of the W&B run among the loggers, to continue it when the run is resumed."""
    found = runs(loggers) if first_rank() else []
    return str(found[0].id) if found else None


def finish(exit_code: int) -> str | None:
    """Ends the current W&B run, if there is one; anything but 0 marks it as failed.

    Returns:
        Where to see the run: its address, or how to sync it. None without a run.
    """
    if "wandb" not in sys.modules:
        return None
    import wandb

    run = wandb.run
    if run is None:
        return None
    folder = Path(run.dir).parent
    if run.disabled:
        wandb.finish(exit_code=exit_code)
        return None
    where = how_to_sync(folder) if run.offline else str(run.url)
    try:
        wandb.finish(exit_code=exit_code)
    except Exception as error:  # the command's own files are written by now, or another error says why not
        log.warning("Weights & Biases could not end the run (%s: %s).", type(error).__name__, error)
    return where


def how_to_sync(folder: Path) -> str:
    """Returns the command that sends an offline run, from any folder and outside of the environment too."""
    return command_line("wandb", "sync", str(folder.resolve()), python=sys.executable)
