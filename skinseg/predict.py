"""Outline the lesions of a folder of photographs: one mask file each.

python -m skinseg.predict ckpt=<run folder>/checkpoints/best.ckpt input=<folder> output=<folder>

Exit codes: 0, each photograph has a mask; 1, some have none (see `unreadable.csv`); 2, a mistake.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import hydra
from omegaconf import DictConfig

from skinseg.config.check import check
from skinseg.config.command import end_with_message, main_of
from skinseg.config.compose import config_dir, plain
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.quoting import command_line, override
from skinseg.run.claims import claimed


@dataclass
class PredictConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the log folder's path.
        run_dir: The folder of the log.
        ckpt: A checkpoint of a run; it alone is needed.
        trust: Packages of your own, or of somebody whom you trust, whose constructors it may name; see
            `skinseg.build.trust`.
        input: Folder of photographs, with subfolders, of all kinds in `skinseg.data.kinds`. Files that are
            named as masks are passed over. Two photographs of one name, also in different subfolders, are
            refused, for all masks lie in one folder and these would have one name.
        output: Folder for the masks, `<image_id>_segmentation.png`: 8-bit grey, 0 and 255, each of its
            photograph's size, upright. A byte of a name that is no UTF-8 is written as in `skinseg.names`,
            in `evaluate` too. Photographs without a mask are listed in `unreadable.csv` there, with
            the reason: they cannot be read, are of a kind that is not, or the mask's name is too long for a
            file.
        threshold: Lesion is where the probability is at least this. null: that of the checkpoint's run.
        overwrite: Take away all that an earlier call wrote to `output`, also masks of photographs that are no
            longer in `input`; what was changed since, and what no call has written, stays, unless a mask of
            this call takes its place. false refuses a folder that holds such.
        device: "auto" takes a GPU where there is one.
        precision: "32-true", "bf16-mixed" or "16-mixed". null: that of the checkpoint's run.
        batch_size: Photographs per forward pass. null: that of the checkpoint's run.
        num_workers: Loader processes. null: by the number of cores.
        max_megapixels: A photograph of more millions of pixels is listed as one that cannot be read; raise it
            for whole slides.
    """

    name: str
    run_dir: str
    ckpt: str
    trust: str | list[str]
    input: str
    output: str
    threshold: float | None
    overwrite: bool
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None
    batch_size: int | None
    num_workers: int | None
    max_megapixels: float


class WithoutMaskError(SkinsegError):
    """The masks are written, but not one for each photograph."""

    exit_code = 1


def run(cfg: DictConfig) -> dict[str, str]:
    """Writes a mask for each photograph.

    Args:
        cfg: The composed configuration; see `PredictConfig`.

    Returns:
        The photographs that have got no mask, with the reason, by file.

    Raises:
        SkinsegError: A mistake in the configuration, a folder or a checkpoint, or no photograph is readable.
    """
    config = plain(cfg)
    config = _check_whole(config)

    from skinseg.callbacks.quiet import quiet

    quiet()
    output = Path(config["output"]).expanduser()
    if output.resolve() == Path(config["input"]).expanduser().resolve():
        raise SkinsegError(f"output={output} is the input; masks would lie among the photographs.")
    with claimed(output):  # before what it holds is looked at
        return _predict(config, output)


def _predict(config: Plain, output: Path) -> dict[str, str]:
    import pandas as pd
    from rich.console import Console
    from rich.progress import track

    from skinseg.build import nets
    from skinseg.inference.files import find_photographs, mask_name, masks_of_others, write_mask
    from skinseg.run.writing import FileNameError, write_csv
    from skinseg.run.written import afresh, written_before

    found = find_photographs(Path(config["input"]).expanduser(), "input")
    files = list(found.files.values())
    targets = [output / mask_name(image_id) for image_id in found.files]
    there = [path for path in targets if os.path.lexists(path)]
    before = written_before(output, "predict")
    if (there or before) and not config["overwrite"]:
        whose = f"masks of {len(there)} of these photographs" if there else "what an earlier call wrote"
        raise SkinsegError(
            f"output={output} already holds {whose}, e.g. {(there or before)[0].name}; take another folder, "
            "or overwrite=true replaces all that an earlier call wrote there."
        )
    net, record = nets.load_net(config["ckpt"], config["trust"])
    options = ("device", "precision", "batch_size", "num_workers", "max_megapixels")
    predictor = nets.predictor(net, record, **{key: config[key] for key in options})
    threshold = net.threshold if config["threshold"] is None else config["threshold"]
    console = Console(highlight=False, soft_wrap=True, markup=False)
    unreadable: dict[int, str] = {}
    done = turned = 0
    with afresh(output, "predict"):
        for prediction in track(
            predictor([str(path) for path in files], unreadable),
            "Outlining",
            total=len(files),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            turned += prediction.turned
            try:
                write_mask(targets[prediction.row], prediction.probability >= threshold)
                done += 1
            except FileNameError as error:
                unreadable[prediction.row] = str(error).replace(str(targets[prediction.row]), "its mask")
        problems = {
            # Decoders name the file, which has a column of its own.
            str(files[row]): problem.removeprefix(f"{files[row]}: ")
            for row, problem in sorted(unreadable.items())
        }
        if not done:
            first = ": ".join(next(iter(problems.items())))
            raise SkinsegError(
                f"input={config['input']}: none of the {counted(len(files), 'file')} can be read, e.g. "
                f"{first}."
            )
        problems |= {str(path): reason for path, reason in found.not_read.items()}
        if problems:
            table = pd.DataFrame({"file": list(problems), "problem": list(problems.values())})
            write_csv(output / "unreadable.csv", table)
        elif not before:
            _remove_unrecorded(output / "unreadable.csv")
        others = masks_of_others(output)
    for remark in found.remarks():
        console.print(remark)
    if others:
        console.print(
            f"Left in {output}: {counted(len(others), 'mask')} that this call did not write, e.g. "
            f"{others[0].name}."
        )
    if turned:
        console.print(
            f"{counted(turned, 'photograph is', 'photographs are')} stored turned or mirrored, and "
            "outlined as viewers show it by its EXIF orientation: the mask is upright"
        )
    console.print(f"{counted(done, 'mask')} at threshold {threshold:g} written to {output}")
    return problems


def _check_whole(config: Plain) -> Plain:
    """Does what `config.check` does, and says what to do about a threshold that validation chooses."""
    if config.get("threshold") == "val":
        raise SkinsegError(
            "threshold=val: predict takes a number. Which one validation chooses says "
            + command_line("skinseg.evaluate", override("ckpt", config.get("ckpt")), "threshold=val")
        )
    return check(config, PredictConfig)


def _remove_unrecorded(table: Path) -> None:
    """Removes the list of an earlier call by a version that kept no record of what it wrote."""
    with suppress(OSError, ValueError):
        if table.read_text(encoding="utf-8").startswith("file,problem\n"):
            table.unlink()


@hydra.main(config_path=str(config_dir()), config_name="predict", version_base="1.3")
def task(cfg: DictConfig) -> None:
    """Runs the command; the exit code says whether each photograph has a mask."""
    try:
        if problems := run(cfg):
            shown = "".join(f"\n  {file}: {problem}" for file, problem in list(problems.items())[:5])
            more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
            listed = Path(cfg.output).expanduser() / "unreadable.csv"
            raise WithoutMaskError(
                f"{counted(len(problems), 'photograph has', 'photographs have')} no mask; see "
                f"{listed}:{shown}{more}"
            )
    except SkinsegError as error:
        end_with_message(error)


main = main_of(task, "predict", PredictConfig, _check_whole)

if __name__ == "__main__":
    sys.exit(main())
