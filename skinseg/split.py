"""Make a split or all folds of a data set, check them, describe them and save them.

python -m skinseg.split data=ham10000 data.root=<folder> data.split.folds=5
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from skinseg.config.check import check
from skinseg.config.command import end_with_message, main_of
from skinseg.config.compose import config_dir, plain
from skinseg.config.schema import Node
from skinseg.counting import counted
from skinseg.errors import SkinsegError
from skinseg.quoting import override, pasted

if TYPE_CHECKING:
    import pandas as pd

    from skinseg.data.catalog import Catalog
    from skinseg.data.splits import Split


@dataclass
class SplitConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the splits are written to.
        data: The data set with `data.split`, as an experiment would read it. With `data.split.folds` all
            folds are made; with `data.split.file` that file is checked and described.
    """

    name: str
    run_dir: str
    data: Node


def run(cfg: DictConfig) -> dict[str, str]:
    """Makes, verifies, describes and saves splits.

    Args:
        cfg: The composed configuration; see `SplitConfig`.

    Returns:
        Fingerprint by file name.

    Raises:
        SkinsegError: A mistake in the configuration or the data, or a split that leaks.
    """
    config = plain(cfg)
    config = check(config, SplitConfig)

    from skinseg.build.nodes import instance
    from skinseg.build.training import data_source
    from skinseg.data.splits import balance, rare_diagnoses
    from skinseg.run.writing import write_csv, write_json
    from skinseg.run.written import afresh

    node = config["data"]
    data = data_source("data", node)
    folder = Path(config["run_dir"])
    console = Console(highlight=False, soft_wrap=True, markup=False)
    folds = node["split"].get("folds")
    record: dict[str, Any] = {}
    splits: dict[str, Split] = {}
    for number in [None] if folds is None else range(folds):
        chosen = node["split"] if number is None else {**node["split"], "fold": number}
        name = "split.csv" if number is None else f"fold_{number}.csv"
        splits[name] = instance("data.split", chosen)(data.catalog)
    with afresh(folder, "split"):
        for name, split in splits.items():
            write_csv(folder / name, split.table)
            _verify(folder / name, split, data.catalog)
            table, rare = balance(split, data.catalog), rare_diagnoses(split, data.catalog)
            record[name] = {**split.record(), "balance": table.to_dict("records"), "rare_diagnoses": rare}
            _show(console, name, split, table)
            for sentence in (*split.stamps, *rare):
                console.print(sentence, style="bold yellow")
            for why, ids in split.left_out.items():
                if ids:
                    console.print(f"Set apart: {counted(len(ids), 'image')} ({why.replace('_', ' ')}).")
        write_json(folder / "split.json", {"catalog": data.catalog.record(), "splits": record})
    first = next(iter(record))
    word = pasted(override("data.split.file", folder / first))
    console.print(f"\nWritten to {folder}. Use one with {word}")
    return {name: str(content["fingerprint"]) for name, content in record.items()}


def _verify(path: Path, split: Split, catalog: Catalog) -> None:
    """Reads a saved split as an experiment would."""
    from skinseg.data.splits import make_split

    again = make_split(catalog, file=str(path), unit=split.unit)
    if again.fingerprint != split.fingerprint:
        raise SkinsegError(
            f"{path} does not hold what was written ({again.fingerprint}, not {split.fingerprint})."
        )


def _show(console: Console, name: str, split: Split, content: pd.DataFrame) -> None:
    promise = ", no lesion on two sides" if split.unit == "lesion" else ""
    title = f"{name}: {split.fingerprint}, by {split.unit}{promise}"
    table = Table(title=title, title_style="bold", title_justify="left")
    sides = [column for column in content if column not in ("what", "value")]
    for column in ("", "", *sides):
        table.add_column(str(column), justify="right" if column else "left")
    before = None
    for line in content.to_dict("records"):
        table.add_row(*_row({str(key): value for key, value in line.items()}, sides, line["what"] != before))
        before = line["what"]
    console.print(table)


def _row(line: Mapping[str, Any], sides: list[Any], first: bool) -> list[str]:
    what = str(line["what"]).replace("_", " ") if first else ""
    form = "{:,.0f}" if line["what"] in ("images", "lesions") else "{:.1f}"
    percent = "" if line["what"] in ("images", "lesions", "age") else " %"
    return [what, str(line["value"]), *(form.format(line[side]) + percent for side in sides)]


@hydra.main(config_path=str(config_dir()), config_name="split", version_base="1.3")
def task(cfg: DictConfig) -> None:
    """Makes the splits."""
    try:
        run(cfg)
    except SkinsegError as error:
        end_with_message(error)


main = main_of(task, "split", SplitConfig)

if __name__ == "__main__":
    sys.exit(main())
