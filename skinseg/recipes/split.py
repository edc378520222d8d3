"""What `python -m skinseg.split` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from skinseg.build.nodes import instance
from skinseg.build.parts import data_source
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.catalog import Catalog
from skinseg.data.readers.manifest import MANIFEST, manifest_of
from skinseg.data.splits.balance import balance, rare_diagnoses
from skinseg.data.splits.make import make_split
from skinseg.data.splits.split import Split
from skinseg.errors import SkinsegError
from skinseg.quoting import override, pasted
from skinseg.run.writing import write_csv, write_json
from skinseg.run.written import afresh


def run(config: Plain) -> dict[str, str]:
    """Makes, verifies, describes and saves splits.

    Args:
        config: Checked; see `skinseg.split.SplitConfig`.

    Returns:
        Fingerprint by file name.

    Raises:
        SkinsegError: A mistake in the configuration or the data, or a split that leaks.
    """
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
        if config["manifest"]:
            write_csv(folder / MANIFEST, manifest_of(data.catalog))
        write_json(folder / "split.json", {"catalog": data.catalog.record(), "splits": record})
    first = next(iter(record))
    word = pasted(override("data.split.file", folder / first))
    console.print(f"\nWritten to {folder}. Use one with {word}")
    return {name: str(content["fingerprint"]) for name, content in record.items()}


def _verify(path: Path, split: Split, catalog: Catalog) -> None:
    """Reads a saved split as an experiment would."""
    again = make_split(catalog, file=str(path), unit=split.unit)
    if again.fingerprint != split.fingerprint:
        raise SkinsegError(
            f"{path} does not hold what was written ({again.fingerprint}, not {split.fingerprint})."
        )


def _show(console: Console, name: str, split: Split, content: pd.DataFrame) -> None:
    promise = ", no lesion in two subsets" if split.unit == "lesion" else ""
    title = f"{name}: {split.fingerprint}, by {split.unit}{promise}"
    table = Table(title=title, title_style="bold", title_justify="left")
    subsets = [column for column in content if column not in ("what", "value")]
    for column in ("", "", *subsets):
        table.add_column(str(column), justify="right" if column else "left")
    before = None
    for line in content.to_dict("records"):
        table.add_row(
            *_row({str(key): value for key, value in line.items()}, subsets, line["what"] != before)
        )
        before = line["what"]
    console.print(table)


def _row(line: Mapping[str, Any], subsets: list[Any], first: bool) -> list[str]:
    what = str(line["what"]).replace("_", " ") if first else ""
    form = "{:,.0f}" if line["what"] in ("images", "lesions") else "{:.1f}"
    percent = "" if line["what"] in ("images", "lesions", "age") else " %"
    return [what, str(line["value"]), *(form.format(line[subset]) + percent for subset in subsets)]
