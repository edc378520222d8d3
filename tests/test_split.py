"""The split command: what it saves, says and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import Train, WriteHam, chosen

from skinseg.config.check import check
from skinseg.config.compose import compose, config_dir, plain
from skinseg.errors import SkinsegError
from skinseg.split import SplitConfig, run


def make(folder: Path, *overrides: str) -> dict[str, str]:
    return run(compose([f"run_dir={folder}", *overrides], "split"))


def test_split_is_saved_described_and_used_by_a_run(
    write_ham: WriteHam, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_ham(20)
    fingerprint = make(tmp_path / "out", f"data.root={root}")["split.csv"]
    assert fingerprint in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "split.json").read_text())["splits"]["split.csv"]
    assert record["test"] == {"images": 8, "groups": 4}
    balance = pd.DataFrame(record["balance"]).set_index(["what", "value"])
    shares = balance.loc["diagnosis"].sum()
    assert shares.to_numpy() == pytest.approx([100, 100, 100])
    assert balance.loc[("images", ""), ["train", "val", "test"]].sum() == 40
    folder = train(f"data.split.file={tmp_path / 'out' / 'split.csv'}", root=root)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["protocol"]["split"] == fingerprint


def test_all_folds(write_ham: WriteHam, tmp_path: Path) -> None:
    made = make(tmp_path / "out", f"data.root={write_ham(20)}", "data.split.folds=4")
    assert list(made) == [f"fold_{number}.csv" for number in range(4)]
    assert len(set(made.values())) == 4
    tables = [pd.read_csv(tmp_path / "out" / name) for name in made]
    tested = pd.concat([table[table["split"] == "test"] for table in tables])
    assert sorted(tested["image_id"]) == sorted(tables[0]["image_id"]), "each image is tested once"


def test_an_earlier_calls_folds_go(write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(20)
    make(tmp_path / "out", f"data.root={root}", "data.split.folds=5")
    (tmp_path / "out/fold_7.csv").write_text("mine")
    made = make(tmp_path / "out", f"data.root={root}", "data.split.folds=3")
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {*made, "fold_7.csv"}
    made = make(tmp_path / "out", f"data.root={root}", f"data.split.file={tmp_path / 'out/fold_1.csv'}")
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {"split.csv", "fold_7.csv"}


def test_classes_too_rare_are_named(
    write_ham: WriteHam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_ham(20)
    metadata = pd.read_csv(root / "HAM10000_metadata.csv")
    metadata.loc[metadata["lesion_id"] == "HAM_9000003", "dx"] = "df"
    metadata.to_csv(root / "HAM10000_metadata.csv", index=False)
    make(tmp_path / "out", f"data.root={root}")
    assert "df has 1 lesion, too few for this split: none in " in capsys.readouterr().out


def test_own_table_is_checked(
    write_ham: WriteHam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_ham(20)
    make(tmp_path / "out", f"data.root={root}")
    own = tmp_path / "own.csv"
    table = pd.read_csv(tmp_path / "out" / "split.csv").drop(columns="group")
    table.to_csv(own, index=False)
    assert make(tmp_path / "again", f"data.root={root}", f"data.split.file={own}") == {
        "split.csv": json.loads((tmp_path / "out" / "split.json").read_text())["splits"]["split.csv"][
            "fingerprint"
        ]
    }
    table.loc[0, "split"] = "test" if table.loc[0, "split"] != "test" else "train"
    table.to_csv(own, index=False)
    with pytest.raises(SkinsegError, match=r"lesions? (is|are) in two subsets"):
        make(tmp_path / "leak", f"data.root={root}", f"data.split.file={own}")
    assert not (tmp_path / "leak").exists()
    make(tmp_path / "leak", f"data.root={root}", f"data.split.file={own}", "data.split.unit=image")
    assert "LEAKY" in capsys.readouterr().out


def test_unknown_ids_in_an_own_table(write_ham: WriteHam, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("image_id,split\nISIC_0000000,train\n")
    with pytest.raises(SkinsegError, match=r"lists 1 image that the data lack .* e\.g\. ISIC_0000000"):
        make(tmp_path / "out", f"data.root={write_ham(5)}", f"data.split.file={own}")


@pytest.mark.slow
def test_command_line(write_ham: WriteHam, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "skinseg.split", f"data.root={write_ham(20)}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no lesion in two subsets" in done.stdout
    refused = subprocess.run(
        [*command, "data.split.foldz=3"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert "did you mean data.split.fold" in refused.stderr


@pytest.mark.parametrize(
    "path", sorted((config_dir() / "data").glob("[!b]*.yaml")), ids=lambda path: path.stem
)
def test_config_of_each_data_set(path: Path) -> None:
    check(plain(compose([*chosen(path.stem), "run_dir=."], "split")), SplitConfig)
