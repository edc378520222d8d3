"""Labels at and around each edge, and what is said of a file that does not fit."""

import numpy as np
import pandas as pd
import pytest

from skinseg.errors import SkinsegError
from skinseg.scoring.appearance import APPEARANCE
from skinseg.scoring.strata import MOST_NUMBERS, MOST_TEXTS, STRATA, UNKNOWN, strata, user_strata

BY_SOURCE = {stratum.source: stratum for stratum in STRATA}


def labels(source, values):
    return strata(pd.DataFrame({source: values}))[BY_SOURCE[source].column].tolist()


def test_registry_is_consistent():
    assert len({stratum.column for stratum in STRATA}) == len(STRATA)
    assert set(APPEARANCE) <= set(BY_SOURCE)
    for stratum in STRATA:
        assert list(stratum.edges) == sorted(set(stratum.edges))
        assert len(stratum.labels) == (len(stratum.edges) + 1 if stratum.edges else 0)
        assert len(set(stratum.labels)) == len(stratum.labels)
        assert UNKNOWN not in stratum.labels


@pytest.mark.parametrize("stratum", [s for s in STRATA if s.edges], ids=lambda s: s.source)
def test_each_edge(stratum):
    for number, edge in enumerate(stratum.edges):
        below, at, above = labels(stratum.source, [np.nextafter(edge, -1e9), edge, np.nextafter(edge, 1e9)])
        assert (below, above) == (stratum.labels[number], stratum.labels[number + 1])
        assert at == (above if stratum.upper == "open" else below)


def test_bands_by_example():
    assert labels("age", [0, 29, 30, 44, 45, 60, 75, 90]) == [
        "<30", "<30", "30-44", "30-44", "45-59", "60-74", "75+", "75+",
    ]  # fmt: skip
    assert labels("ita", [60, 55, 41, 28, 10, -30, -31, 95]) == [
        "very light", "light", "intermediate", "tan", "brown", "dark", "dark", "off the scale (bluish)",
    ]  # fmt: skip
    assert labels("touches_border", [True, False]) == ["yes", "no"]
    assert labels("touches_border", [1.0, 0.0, np.nan]) == ["yes", "no", UNKNOWN]
    assert labels("hair", [0, 0.5, 4]) == ["none", "some", "much"]
    assert labels("contrast", [-20, 5, 15, 25]) == ["<5", "5-15", "15-25", "25+"]
    assert labels("lesion_share", [0, 5, 15, 30, 100]) == ["<5 %", "5-15 %", "15-30 %", "30+ %", "30+ %"]


def test_bands_are_ordered_and_complete():
    column = strata(pd.DataFrame({"age": [80.0, 20.0]}))["stratum_age"]
    assert column.cat.ordered
    assert column.cat.categories.tolist() == ["<30", "30-44", "45-59", "60-74", "75+", UNKNOWN]
    assert column.sort_values().tolist() == ["<30", "75+"]


@pytest.mark.parametrize("source", BY_SOURCE)
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_is_unknown(source, missing):
    assert labels(source, [missing, missing]) == [UNKNOWN, UNKNOWN]
    assert labels(source, pd.array([missing], dtype="Float64" if BY_SOURCE[source].edges else "string")) == [
        UNKNOWN
    ]


def test_other_values_stay_as_they_are():
    table = pd.DataFrame({"sex": ["male", None, "female", "unknown"], "dataset": ["b", "a", "b", "a"]})
    found = strata(table)
    assert found["stratum_sex"].tolist() == ["male", UNKNOWN, "female", UNKNOWN]
    assert found["stratum_sex"].cat.categories.tolist() == ["female", "male", UNKNOWN]
    assert found["stratum_dataset"].tolist() == ["b", "a", "b", "a"]


def test_table_is_added_to():
    table = pd.DataFrame({"image_id": ["x", "y"], "age": [50.0, None], "other": [1, 2]}, index=[7, 3])
    before = table.copy()
    found = strata(table)
    assert found.columns.tolist() == ["image_id", "age", "other", "stratum_age"]
    assert found["stratum_age"].tolist() == ["45-59", UNKNOWN]
    assert found.index.tolist() == [7, 3]
    pd.testing.assert_frame_equal(table, before)
    assert strata(table.iloc[:0])["stratum_age"].tolist() == []


def write(folder, text):
    path = folder / "own.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_texts_and_few_numbers(tmp_path):
    path = write(tmp_path, "\ufeffclinic, image_id,grade\nB,x,10\n A ,y,2\n,z,\n")
    found = user_strata(path)
    assert found.columns.tolist() == ["image_id", "clinic", "grade"]
    assert found["image_id"].tolist() == ["x", "y", "z"]
    assert found["clinic"].tolist() == ["B", "A", UNKNOWN]
    assert found["clinic"].cat.categories.tolist() == ["A", "B", UNKNOWN]
    assert found["grade"].tolist() == ["10", "2", UNKNOWN]
    assert found["grade"].cat.categories.tolist() == ["2", "10", UNKNOWN], "by size, not by name"


def test_many_numbers_are_cut_at_quartiles(tmp_path):
    path = write(tmp_path, "image_id,size\n" + "".join(f"i{n},{n}\n" for n in range(1, 101)) + "last,\n")
    column = user_strata(path)["size"]
    bands = ["up to 25", "25 to 50", "50 to 75", "above 75"]
    assert column.cat.categories.tolist() == [*bands, UNKNOWN]
    assert column.value_counts()[bands].tolist() == [25, 25, 25, 25]
    assert column.iloc[-1] == UNKNOWN


@pytest.mark.parametrize(
    "values",
    [
        [0] * 80 + list(range(1, 21)),
        [1e9 + n for n in range(50)],
        [n / 1e6 for n in range(50)],
        [9] * 90 + [n / 10 for n in range(20)],
        list(range(MOST_NUMBERS + 1)),
        [-n for n in range(30)],
    ],
)
def test_no_band_is_empty_or_named_like_another(tmp_path, values):
    path = write(tmp_path, "image_id,v\n" + "".join(f"i{k},{v!r}\n" for k, v in enumerate(values)))
    column = user_strata(path)["v"]
    counts = column.value_counts().drop(UNKNOWN)
    assert counts.sum() == len(values)
    assert (counts > 0).all()
    assert 2 <= len(counts) <= 4
    order = column.cat.codes.to_numpy()[np.argsort(values, kind="stable")]
    assert (np.diff(order) >= 0).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CSV"),
        (b"\xff\xfe\x00image_id", "not a readable CSV"),
        ("image_id,a\nx,1,2\ny,1,2\n", "not a readable CSV"),
        ("id,a\nx,1\n", "found the columns id, a; expected image_id"),
        ("image_id|a\nx|1\n", r"found the columns image_id\|a; expected image_id.* separated by commas"),
        ("image_id\nx\n", "found the columns image_id; expected image_id and at least one more"),
        ("image_id,a,a \nx,1,2\n", "each once"),
        ("image_id,a\nx,1\n x,2\n", "1 image id occurs twice, x first"),
        ("image_id,a\nx,1\n,2\n", "1 row has no image_id"),
        (
            "image_id,a\n" + "".join(f"i{n},t{n}\n" for n in range(MOST_TEXTS + 1)),
            f"column a has {MOST_TEXTS + 1} different texts, expected at most {MOST_TEXTS}",
        ),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(SkinsegError, match=message) as error:
        user_strata(path)
    assert str(error.value).startswith(str(path))


def test_absent_file(tmp_path):
    with pytest.raises(SkinsegError, match=r"absent\.csv: not a readable CSV"):
        user_strata(tmp_path / "absent.csv")


def test_as_many_texts_as_are_allowed(tmp_path):
    path = write(tmp_path, "image_id,a\n" + "".join(f"i{n},t{n}\n" for n in range(MOST_TEXTS)))
    assert user_strata(path)["a"].nunique() == MOST_TEXTS
