"""Outline the lesions of a folder of photographs: one mask file each.

python -m skinseg.predict ckpt=<run folder>/checkpoints/best.ckpt input=<folder> output=<folder>

Exit codes: 0, each photograph has a mask; 1, some have none (see `unreadable.csv`); 2, a mistake.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skinseg.config.check import check
from skinseg.config.command import Command
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.quoting import command_line, override


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


def _check_whole(config: Plain) -> Plain:
    """Does what `check` does, and says what to do about a threshold that validation chooses."""
    if config.get("threshold") == "val":
        raise SkinsegError(
            "threshold=val: predict takes a number. Which one validation chooses says "
            + command_line("skinseg.evaluate", override("ckpt", config.get("ckpt")), "threshold=val")
        )
    return check(config, PredictConfig)


def _say(config: Plain, problems: Mapping[str, str]) -> None:
    """Lets the exit code say whether each photograph has a mask."""
    if problems:
        listed = "".join(f"\n  {file}: {problem}" for file, problem in list(problems.items())[:5])
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise WithoutMaskError(
            f"{counted(len(problems), 'photograph has', 'photographs have')} no mask; see "
            f"{Path(config['output']).expanduser() / 'unreadable.csv'}:{listed}{more}"
        )


_COMMAND = Command("predict", PredictConfig, "skinseg.recipes.predict", checked=_check_whole, ends=_say)
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
