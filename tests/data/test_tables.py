"""The one reader of tables that people wrote, and every file that goes through it."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pandas as pd
import pytest
from conftest import WriteHam, write_mask
from trees import DIALECTS, write_isic9

from skinseg.data.catalog import Catalog
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.problems import Problems
from skinseg.data.readers.folders import read_folders
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.readers.isic9 import read_isic9
from skinseg.data.splits.make import make_split
from skinseg.data.tables import as_numbers, image_ids, lesion_ids, matching, numbers, read_table
from skinseg.errors import SkinsegError
from skinseg.scoring.strata import user_lesions, user_strata

PLAIN = "image_id,lesion_id,age\nISIC_0000001,HAM_1,45.0\nISIC_0000002,,50.0\nISIC_0000003,HAM_1,\n"


def write(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects_hold_the_same(tmp_path: Path, dialect: str) -> None:
    table = read_table(write(tmp_path, DIALECTS[dialect](PLAIN)), ["image_id", "lesion_id"], known=["age"])
    assert table.columns.tolist() == ["image_id", "lesion_id", "age"]
    assert table["image_id"].tolist() == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
    assert table["lesion_id"].isna().tolist() == [False, True, False]
    assert as_numbers(table["age"]).tolist()[:2] == [45, 50]


def test_letters_of_windows_and_of_several_code_points(tmp_path: Path) -> None:
    for content in ("a,b\n\xe9,1\n".encode("cp1252"), "a,b\ne\u0301,1\n".encode()):
        assert read_table(write(tmp_path, content), ["a", "b"])["a"].tolist() == ["\xe9"]


def test_a_blank_is_no_value(tmp_path: Path) -> None:
    blanks = ["", " ", "\t ", "\xa0", "\u200b", "NA", "nan", "NULL", "None", "#N/A", "#NAME?"]
    rows = "".join(f"i{number};{blank}\n" for number, blank in enumerate(blanks))
    assert read_table(write(tmp_path, f"a;b\n{rows}"), ["a", "b"])["b"].isna().all()
    assert read_table(write(tmp_path, "a;b\n1;none\n"), ["a", "b"])["b"].tolist() == ["none"], "a word"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"table\.csv: not a readable CSV table \(it is empty\); expected the columns a and b"),
        (b"PK\x03\x04\x00", "it is an Excel workbook; save it as CSV"),
        (b"a,b\n\x00\x00,1\n", "it holds zero bytes"),
        (b"\xff\xfea", "not a readable CSV table"),
        (b'a,b\n"x,1\ny,2\n', "not a readable CSV table"),
        (b"a,b\nx,1,2\n", "line 2 has 3 values, the header 2: x,1,2"),
        (b"a,b\nx,45,0\n", "line 2 has 3 values, the header 2"),
        (b"a,b,,c\nx,1,lost,2\n", "column 3 has values and no name"),
        (b"a,b\n", "a header and no row"),
        (b"a,c\nx,1\n", r"lacks the columns \['b'\]; found the columns a, c; expected a and b, each once"),
        (b"a,b,B \nx,1,2\n", r"has several columns \['b'\]"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SkinsegError, match=message):
        read_table(write(tmp_path, content), ["a", "b"])
    with pytest.raises(SkinsegError, match=r"^data\.key=.*table\.csv"):
        read_table(write(tmp_path, content), ["a", "b"], key="data.key")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(SkinsegError, match="not a readable CSV table"):
            read_table(path, ["a"])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["45,0", "45.0", "7", "-3,5", "1e2"], [45, 45, 7, -3.5, 100]),
        (["0,125", "1,250"], [0.125, 1.25]),
        (["1,250", "2,500"], [None, None]),  # thousands, or one and a bit
        (["1.250", "2.500"], [1.25, 2.5]),
        (["1.250", "2,5"], [None, 2.5]),
        (["1.234,5", "1 000", "1_000", "inf", "forty", "45y"], [None] * 6),
    ],
)
def test_numbers(texts: list[str], expected: list[float | None]) -> None:
    found = as_numbers(pd.Series(texts, dtype=object))
    assert [None if math.isnan(value) else value for value in found] == expected


def test_a_value_that_is_no_number_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    texts = pd.Series(["45,0", "forty", None, "444"], name="age", dtype=object)
    with caplog.at_level(logging.WARNING):
        found = numbers(texts, "m.csv", low=0, high=120)
    assert found.isna().tolist() == [False, True, True, True]
    assert "m.csv: 2 of the 3 values of the column age are no numbers from 0 to 120" in caplog.text
    assert "'forty', '444'" in caplog.text


def test_image_ids_and_names_of_files_are_the_same() -> None:
    written = ["ISIC_0000001", "isic_0000001", "images/ISIC_0000001.JPG", "C:\\x\\isic_0000001.png"]
    assert set(image_ids(pd.Series([*written, "ISIC_0000001_downsampled.jpg"]))) == {"ISIC_0000001"}
    assert image_ids(pd.Series(["a.b", "1.0", None])).tolist()[:2] == ["a.b", "1.0"]


def test_matching_prefers_the_same_letters() -> None:
    images = ["Img1", "x", "X", "y"]
    assert matching(pd.Series(["img1", "x", "X", "Y", "z"]), images).tolist()[:4] == ["Img1", "x", "X", "y"]
    assert matching(pd.Series(["z", None]), images).isna().all()
    assert matching(pd.Series(["iMG"]), ["img", "IMG"]).isna().all(), "it may be either"


def test_spellings_of_a_lesion_are_one_and_said(caplog: pytest.LogCaptureFixture) -> None:
    written = ["HAM_0000118", "ham_0000118", "Lesion 1", "lesion  1", "lesion 1", "2", "unknown", "-", None]
    with caplog.at_level(logging.WARNING):
        ids = lesion_ids(pd.Series(written, name="lesion_id", dtype=object), "m.csv")
    assert ids.dropna().tolist() == ["HAM_0000118"] * 2 + ["Lesion 1"] * 3 + ["2"]
    assert "m.csv: 1 id of the column lesion_id has several spellings" in caplog.text


# Each file of the user's and of publishers, in each dialect


def read_ham(root: Path, **policy: str) -> Catalog:
    return read_ham10000(root, Problems(policy), verify=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_metadata_of_ham10000(write_ham: WriteHam, dialect: str) -> None:
    root = write_ham(3)
    path = root / "HAM10000_metadata.csv"
    expected = read_ham(root).table
    text = path.read_text()
    path.write_bytes(DIALECTS[dialect](text))
    pd.testing.assert_frame_equal(read_ham(root).table, expected)
    # Elsewhere, for another data set.
    write_isic9(root.parent / "nine", {"Train/nevus": expected["image_id"].tolist()})
    table = read_isic9(
        root.parent / "nine", Problems({"missing_mask": "keep"}), metadata=[str(path)], verify=False
    ).table
    assert table["group"].tolist() == expected["group"].tolist()
    assert table["age"].fillna(0).tolist() == expected["age"].fillna(0).tolist()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_metadata_of_the_archive(tmp_path: Path, dialect: str) -> None:
    ids = [f"ISIC_000000{number}" for number in range(4)]
    write_isic9(tmp_path, {"Train/nevus": ids})
    text = "isic_id,lesion_id,age_approx\n" + "".join(
        f"{i},IL_{k // 2},{40 + k}.0\n" for k, i in enumerate(ids)
    )
    (tmp_path / "isic_archive_metadata.csv").write_bytes(DIALECTS[dialect](text))
    table = read_isic9(tmp_path, Problems({"missing_mask": "keep"}), verify=False).table
    assert table["group"].tolist() == ["IL_0", "IL_0", "IL_1", "IL_1"]
    assert table["age"].tolist() == [40, 41, 42, 43]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tables_of_the_user(write_ham: WriteHam, tmp_path: Path, dialect: str) -> None:
    root = write_ham(12)
    data = read_ham(root)
    split = make_split(data)
    own = write(tmp_path, DIALECTS[dialect](split.table.to_csv(index=False, lineterminator="\n")))
    assert make_split(data, file=str(own)).fingerprint == split.fingerprint
    ids = data.table["image_id"].tolist()
    pairs = write(tmp_path, DIALECTS[dialect](f"a,b\n{ids[0]},{ids[2]}\n{ids[0]},{ids[4]}\n"), "pairs.csv")
    assert module(root, pairs).catalog.table["group"].nunique() == 10
    strata = write(tmp_path, DIALECTS[dialect](f"image_id,lesion_id,size\n{ids[0]},L1,1.0\n{ids[1]},,2.0\n"))
    found = user_strata(strata)
    assert found.iloc[:, 1].tolist() == ["1", "2"]
    assert found["image_id"].tolist() == ids[:2]
    assert user_lesions(strata) == {ids[0]: "L1"}


def module(root: Path, pairs: Path | None = None, **more: str) -> LesionDataModule:
    same_lesion = None if pairs is None else str(pairs)
    return LesionDataModule(
        reader=read_ham10000,
        root=str(root),
        image_size=(32, 32),
        verify=False,
        same_lesion=same_lesion,
        **more,
    )  # type: ignore[arg-type]


# A known file that is not understood


@pytest.mark.parametrize(
    "name", ["isic_archive_metadata.csv", "ISIC_Archive_Metadata.CSV", "HAM10000_metadata"]
)
@pytest.mark.parametrize("content", ["a,b\n1,2\n", "isic_id\nISIC_0000001\n", "PK\x03\x04"])
def test_a_known_file_that_is_not_understood(tmp_path: Path, name: str, content: str) -> None:
    write_isic9(tmp_path, {"Train/nevus": ["ISIC_0000001"]})
    write(tmp_path, content, name)
    with pytest.raises(SkinsegError, match=name):
        read_isic9(tmp_path, Problems({"missing_mask": "keep"}), verify=False)


def test_a_metadata_file_of_another_program_is_passed_over_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_isic9(tmp_path, {"Train/nevus": ["ISIC_0000001"]})
    write(tmp_path, "file_name,label\na.jpg,1\n", "metadata.csv")
    with caplog.at_level(logging.WARNING):
        read_isic9(tmp_path, Problems({"missing_mask": "keep"}), verify=False)
    assert "metadata.csv is not the ISIC Archive's metadata" in caplog.text
    write(tmp_path, "isic_id,label\na.jpg,1\n", "metadata.csv")
    with pytest.raises(SkinsegError, match=r"metadata\.csv is neither"):
        read_isic9(tmp_path, Problems({"missing_mask": "keep"}), verify=False)


def test_named_metadata_that_know_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_isic9(tmp_path, {"Train/nevus": ["ISIC_0000001", "ISIC_0000002"]})
    path = write(tmp_path, "isic_id,lesion_id\nISIC_0000009,IL_1\n", "own.csv")
    with pytest.raises(SkinsegError, match=r"own\.csv: none of its 1 row matches any of the 2 images"):
        read_isic9(tmp_path, Problems({"missing_mask": "keep"}), metadata=[str(path)], verify=False)
    write(tmp_path, "isic_id,lesion_id\nisic_0000001.jpg,IL_1\nISIC_0000009,IL_1\n", "own.csv")
    with caplog.at_level(logging.INFO):
        read_isic9(tmp_path, Problems({"missing_mask": "keep"}), metadata=[str(path)], verify=False)
    assert "own.csv: 1 of 2 rows matches the 2 images; these do not: ISIC_0000009" in caplog.text


# Lesions


def test_lesion_ids_of_several_spellings_are_one_lesion(write_ham: WriteHam) -> None:
    root = write_ham(12)
    path = root / "HAM10000_metadata.csv"
    rows = pd.read_csv(path, dtype=str)
    spelled = [
        (str, "{} ".format, str.lower, "\xa0{}".format)[k % 4](v) for k, v in enumerate(rows["lesion_id"])
    ]
    rows.assign(lesion_id=spelled).to_csv(path, index=False)
    assert read_ham(root).table["group"].tolist() == rows["lesion_id"].tolist()


@pytest.mark.parametrize("blank", ["", " ", "\xa0", "NA", "N/a", "n.a.", "nil", "unknown"])
def test_images_without_a_lesion_id(write_ham: WriteHam, blank: str) -> None:
    root = write_ham(12)
    path = root / "HAM10000_metadata.csv"
    rows = pd.read_csv(path, dtype=str)
    rows["lesion_id"] = rows["lesion_id"].where(rows.index % 2 == 0, blank)
    rows.to_csv(path, index=False)
    with pytest.raises(SkinsegError, match=r"(?s)12 images of HAM10000 have no lesion id.*on_missing_lesion"):
        read_ham(root)
    kept = read_ham(root, missing_lesion="keep").table
    assert kept["group"].nunique() == 24
    assert kept["group_source"].value_counts().to_dict() == {"image": 12, "ham10000": 12}
    dropped = read_ham(root, missing_lesion="drop")
    assert (len(dropped), len(dropped.dropped["missing_lesion"])) == (12, 12)


def test_ages_that_are_none_are_counted(write_ham: WriteHam, caplog: pytest.LogCaptureFixture) -> None:
    root = write_ham(3)
    path = root / "HAM10000_metadata.csv"
    pd.read_csv(path).assign(age=["45,0", "about 40", "0", "", "1965", "30.5"]).to_csv(path, index=False)
    with caplog.at_level(logging.WARNING):
        ages = read_ham(root).table["age"]
    assert ages.dropna().tolist() == [45, 30.5]
    assert "2 of the 5 values of the column age are no numbers from 0 to 120" in caplog.text
    assert "'about 40', '1965'" in caplog.text


def test_diagnoses_in_capitals(write_ham: WriteHam) -> None:
    root = write_ham(3)
    path = root / "HAM10000_metadata.csv"
    expected = read_ham(root).table
    pd.read_csv(path).assign(dx=lambda rows: rows["dx"].str.upper()).to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_ham(root).table, expected)


# Pairs


@pytest.mark.parametrize("form", ["{}.jpg", " {} ", "images/{}.JPG"])
def test_pairs_in_other_forms_join(write_ham: WriteHam, tmp_path: Path, form: str) -> None:
    root = write_ham(4)
    ids = read_ham(root).table["image_id"].tolist()
    for change in (str, str.lower):
        a, b = (change(form.format(ids[number])) for number in (0, 2))
        catalog = module(root, write(tmp_path, f"a,b\n{a},{b}\n")).catalog
        assert catalog.table["group"].nunique() == 3
        assert catalog.notes["same_lesion"] == [ids[0], ids[2]]


def test_pairs_that_match_in_part_or_not_at_all(
    write_ham: WriteHam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_ham(4)
    ids = read_ham(root).table["image_id"].tolist()
    table = write(tmp_path, f"a,b\n{ids[0]},{ids[2]}\n{ids[4]},ISIC_0\n{ids[4]},\n")
    with caplog.at_level(logging.INFO):
        assert module(root, table).catalog.table["group"].nunique() == 3
    assert f"1 of 3 rows matches the 8 images; these do not: {ids[4]},ISIC_0, {ids[4]},(blank)" in caplog.text
    write(tmp_path, "a,b\nISIC_0,ISIC_1\n")
    with pytest.raises(
        SkinsegError, match=rf"none of its 1 row .*such as {ids[0]}, found such as ISIC_0,ISIC_1"
    ):
        _ = module(root, table).catalog


# Masks of a folder with a user's lesions


def test_lesions_and_images_of_one_name_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    masks = {name: write_mask(tmp_path / f"{name}.png") for name in ("1", "2", "3", "image 1", "IMG4")}
    catalog = read_folders(masks, lesions={"2": "1", "3": "1", "img4": "image 1"})
    table = catalog.table.set_index("image_id")
    assert table["group"].nunique() == 4
    assert table.loc["2", "group"] == table.loc["3", "group"] == "1", "lesions keep their names"
    assert table.loc["IMG4", "group_source"] == "strata"
    assert table.loc["1", "group_source"] == "image"
