"""What `python -m skinseg.ensemble` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from skinseg.build.trust import trusted_checkpoint
from skinseg.callbacks.writing import WholeCheckpointIO
from skinseg.config.compose import yaml_of
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.files import subfolders
from skinseg.errors import SkinsegError
from skinseg.inference.ensemble import join_checkpoints
from skinseg.quoting import command_line, override
from skinseg.run.provenance import provenance
from skinseg.run.writing import write_json, write_text
from skinseg.run.written import written_by_any
from skinseg.sweep.jobs import PLAN, entries_of


def run(config: Plain) -> Path:
    """Writes the ensemble.

    Args:
        config: Checked; see `skinseg.ensemble.EnsembleConfig`.

    Returns:
        Its checkpoint.

    Raises:
        SkinsegError: A mistake in the configuration, a run without a checkpoint, members that do not fit
            together, or a folder with something else.
    """
    entries = [config["runs"]] if isinstance(config["runs"], str) else config["runs"]
    paths = [path for entry in entries for path in _checkpoints(Path(entry).expanduser())]
    if len({path.resolve() for path in paths}) < len(paths):
        raise SkinsegError("runs: a checkpoint is named twice; it would have two votes.")
    if len(paths) < 2:
        raise SkinsegError(f"runs: found {counted(len(paths), 'checkpoint')}; an ensemble needs two or more.")
    folder = Path(config["run_dir"])
    _refuse_taken(folder)
    members = {str(path): trusted_checkpoint(path, key="runs", trust=config["trust"]) for path in paths}
    joined = join_checkpoints(members, name=config["name"], run_dir=str(folder))
    target = folder / "checkpoints/ensemble.ckpt"
    WholeCheckpointIO().save_checkpoint(joined, target)
    write_text(folder / "config.yaml", yaml_of(joined["skinseg"]["config"]))
    write_json(folder / "provenance.json", {**provenance(), "members": list(members)})
    _show(list(members), joined["skinseg"], target)
    return target


def _refuse_taken(folder: Path) -> None:
    """Refuses a folder whose record of a training, or of another command, would be replaced in part."""
    kept = (path for path in (folder / "checkpoints").glob("*") if not path.name.startswith("ensemble."))
    record = (path for name in ("split.csv", "summary.json") if (path := folder / name).is_file())
    if others := sorted([*kept, *record, *written_by_any(folder)]):
        raise SkinsegError(
            f"hydra.run.dir={folder} holds something else than an ensemble, e.g. {others[0].name}, whose "
            "record would be replaced in part. Leave hydra.run.dir out or name another folder."
        )


def _checkpoints(path: Path) -> list[Path]:
    """Returns the checkpoint that a path is, or the best of the run or the runs in it."""
    if path.is_file():
        return [path]
    if (path / "checkpoints").is_dir():
        return [path / "checkpoints/best.ckpt"]
    if (path / PLAN).is_file():
        return [path / folder / "checkpoints/best.ckpt" for folder in _done(path)]
    below = subfolders(path) if path.is_dir() else []
    runs = [folder for folder in below if (folder / "checkpoints").is_dir()]
    if not runs:
        raise SkinsegError(
            f"runs={path}: neither a checkpoint, nor a folder of a run or of a sweep (no checkpoints/ in it "
            "or one level below)."
        )
    return [
        folder / "checkpoints/best.ckpt"
        for folder in sorted(runs, key=lambda folder: (len(folder.name), folder.name))
    ]


def _done(sweep: Path) -> list[str]:
    """Returns the folders of a sweep's jobs, in an earlier sweep where one was left out as done before."""
    jobs = entries_of(sweep)
    if open_jobs := [job for job in jobs if job["state"] != "done"]:
        named = ", ".join(f"{job['number']} ({job['state']})" for job in open_jobs)
        raise SkinsegError(
            f"runs={sweep}: jobs of this sweep are not done: {named}. Go on with it (sweep.resume=true), or "
            "name the runs one by one."
        )
    return [job["scores"] for job in jobs]


def _show(members: Sequence[str], record: Plain, target: Path) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{counted(len(members), 'member')}:")
    for path in members:
        console.print(f"  {path}")
    subsets: dict[str, Any] = {
        subset: record["sides"]["split"].count(subset) for subset in ("train", "val", "test")
    }
    console.print(
        f"{counted(subsets['train'], 'image was', 'images were')} in the training of a member, "
        f"{subsets['val']:,} chose the epoch of one, {subsets['test']:,} neither."
    )
    command = command_line("skinseg.evaluate", override("ckpt", target))
    if subsets["test"]:
        console.print(f"Score it on those: {command}")
    else:
        console.print(
            "No image of its data is left to score it on; take another data set: "
            f"{command} data=<data set> data.root=<folder>"
        )
