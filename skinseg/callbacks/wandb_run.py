"""Weights & Biases: one run from start to finish, with or without a network."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, WandbLogger
from numpy.typing import NDArray

from skinseg.callbacks.scores import score_table
from skinseg.errors import SkinsegError
from skinseg.names import folder_name
from skinseg.online import reachable
from skinseg.pictures import Panel
from skinseg.quoting import command_line, override
from skinseg.run.writing import first_rank
from skinseg.run.written import written_in

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]
CLASSES = {0: "skin", 1: "lesion"}


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


def log_mask_images(loggers: Iterable[Logger], key: str, panels: Sequence[Panel], step: int) -> None:
    """Logs photographs whose masks can be switched on and off.

    Args:
        loggers: Those of Weights & Biases among them are used.
        key: Metric key.
        panels: The photographs with their masks.
        step: The trainer's global step.
    """
    for run in runs(loggers):
        import wandb

        shapes = [panel.truth.shape for panel in panels]
        # Side by side they have to be of one size; photographs of several sources are not.
        frame = (max(shape[0] for shape in shapes), max(shape[1] for shape in shapes))
        images = [
            wandb.Image(
                _padded(panel.image, frame),
                caption=panel.caption,
                masks={
                    name: {"mask_data": _padded(mask.astype(np.uint8), frame), "class_labels": CLASSES}
                    for name, mask in (("truth", panel.truth), ("prediction", panel.predicted))
                },
            )
            for panel in panels
        ]
        run.log({key: images, "trainer/global_step": step})


def _padded(picture: NDArray[np.uint8], frame: tuple[int, int]) -> NDArray[np.uint8]:
    """Adds black on the right and below up to a height and width."""
    around = [(0, frame[0] - picture.shape[0]), (0, frame[1] - picture.shape[1]), (0, 0)][: picture.ndim]
    return np.pad(picture, around)


class LogScoreTable(Callback):
    """Logs the test side's per-image scores, and a table of the worst images with their photographs.

    Args:
        images: How many of the worst are shown.
    """

    def __init__(self, images: int = 16) -> None:
        self.images = images

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs both tables."""
        found = runs(trainer.loggers) if trainer.is_global_zero else []
        if not found:
            return
        import wandb

        data = trainer.datamodule  # type: ignore[attr-defined]
        table = score_table(pl_module, data, "test")  # type: ignore[arg-type]
        worst = table.sort_values("dice").head(self.images)
        files = {file.image_id: file for file in data.dataset("test").files}
        photographs = [wandb.Image(files[image_id].read_photograph()) for image_id in worst["image_id"]]
        for run in found:
            run.log(
                {
                    "test/scores": wandb.Table(dataframe=table),
                    "test/worst": wandb.Table(
                        columns=["image", *worst.columns],
                        data=[[p, *row] for p, row in zip(photographs, worst.values.tolist(), strict=True)],
                    ),
                    "trainer/global_step": trainer.global_step,
                }
            )


class LogCheckpoint(Callback):
    """Keeps the best checkpoint as an artifact of the run.

    Args:
        path: The checkpoint.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the file, online at once, offline with the next sync."""
        found = runs(trainer.loggers) if trainer.is_global_zero and self.path.is_file() else []
        for run in found:
            import wandb

            artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model")
            artifact.add_file(str(self.path), name="best.ckpt")
            run.log_artifact(artifact, aliases=["best"])


def log_evaluation(loggers: Iterable[Logger], folder: Path) -> None:
    """Keeps the tables and the report of an evaluation or a comparison as an artifact.

    Args:
        loggers: Those of Weights & Biases among them are used.
        folder: What an evaluation or a comparison is writing; see `skinseg.run.written.afresh`.
    """
    for run in runs(loggers):
        import wandb

        written = written_in(folder)
        kind = "comparison" if folder.absolute() / "comparison.json" in written else "evaluation"
        artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
        for path in written:  # and nothing else that lies there
            if path.suffix in (".csv", ".json", ".html", ".md"):
                artifact.add_file(str(path))
        run.log_artifact(artifact)
        report = folder / "report.html"
        run.log({"report": wandb.Html(report.read_text(encoding="utf-8"), inject=False)})


def fetch_evaluations(group: str, folder: Path) -> list[Path]:
    """Fetches the evaluations of a group of runs from Weights & Biases.

    Args:
        group: `<entity>/<project>/<group>`.
        folder: Where they are put, a folder for each.

    Returns:
        Their folders; what lies there of an earlier call is not among them.

    Raises:
        SkinsegError: The name is not of that form, the host cannot be reached, or no run has one.
    """
    import wandb

    parts = group.split("/")
    if len(parts) != 3:
        raise SkinsegError(f"runs=wandb:{group}: expected wandb:<entity>/<project>/<group>.")
    found: list[Path] = []
    try:
        for run in wandb.Api().runs("/".join(parts[:2]), filters={"group": parts[2]}):
            for artifact in run.logged_artifacts():
                if artifact.type == "evaluation":
                    names = (f"{run.name}-{run.id}", artifact.name)
                    place = folder.joinpath(*map(folder_name, names))
                    artifact.download(root=str(place))
                    found.append(place)
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise SkinsegError(f"runs=wandb:{group} cannot be fetched: {error}") from error
    if not found:
        raise SkinsegError(
            f"runs=wandb:{group}: no run of this group has an evaluation; make them with "
            + command_line(
                "skinseg.evaluate", "ckpt=<best.ckpt>", "logger=wandb", override("group", parts[2])
            )
        )
    return found
