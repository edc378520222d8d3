"""Runs side by side."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb
from conftest import make_ham, train_tiny
from numpy.typing import NDArray
from PIL import Image

from skinseg.compare import run
from skinseg.config.compose import compose
from skinseg.errors import SkinsegError
from skinseg.evaluate import run as evaluate
from skinseg.evaluation.comparison import Comparison
from skinseg.evaluation.methods import methods_of
from skinseg.evaluation.runs import ScoredRun, load_runs
from skinseg.scoring.metrics import METRICS
from skinseg.scoring.overlap import OVERLAP_METRICS
from skinseg.scoring.statistics import (
    LEAST_LESIONS,
    cluster_intervals,
    paired_runs,
    paired_test,
    run_intervals,
)
from skinseg.sweep.jobs import Job
from skinseg.tracking.artifacts import fetch_evaluations

IMAGES = 24


def write_masks(folder: Path, *, spread: float, seed: int = 0, number: int = IMAGES) -> Path:
    """Writes discs, each with a radius that is wrong by up to `spread` pixels."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    ys, xs = np.mgrid[:40, :50]
    for index in range(number):
        radius = 10 + index % 5 + spread * generator.uniform(-1, 1)
        disc = (xs - 25) ** 2 + (ys - 20) ** 2 < radius**2
        Image.fromarray(disc.astype(np.uint8) * 255).save(folder / f"ISIC_{index:07d}_segmentation.png")
    return folder


def score(place: Path, name: str, *overrides: str, truth: str = "truth") -> Path:
    folder = place / "evaluations" / name
    what = [f"predictions={place / name}", f"truth={place / truth}", f"strata={place / 'lesions.csv'}"]
    what += ["workers=0", "draws=200", "gallery=2", f"run_dir={folder}", *overrides]
    evaluate(compose(what, "evaluate"))
    return folder


def compare(place: Path, runs: str, *overrides: str) -> Comparison:
    what = [f"runs={runs}", "draws=500", "gallery=2", f"run_dir={place / 'comparison'}", *overrides]
    return run(compose(what, "compare"))


def content(place: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads((place / "comparison/comparison.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truth, a good, a fair and a bad program, scored; two images a lesion."""
    place = tmp_path_factory.mktemp("masks")
    write_masks(place / "truth", spread=0)
    for name, spread in (("good", 0.5), ("fair", 1.5), ("bad", 5)):
        write_masks(place / name, spread=spread, seed=int(10 * spread))
    ids = [f"ISIC_{index:07d}" for index in range(IMAGES)]
    lesions = [f"L{index // 2}" for index in range(IMAGES)]
    pd.DataFrame({"image_id": ids, "lesion_id": lesions}).to_csv(place / "lesions.csv", index=False)
    for name in ("good", "fair", "bad"):
        score(place, name)
    return place


@pytest.fixture
def place(masks: Path, tmp_path: Path) -> Path:
    shutil.copytree(masks, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_ranking_differences_and_p_are_those_of_the_scores(place: Path) -> None:
    compare(place, str(place / "evaluations"))
    found = content(place)
    assert [entry["name"] for entry in found["runs"]] == ["good", "fair", "bad"]
    tables = {name: pd.read_csv(place / f"evaluations/{name}/scores.csv") for name in ("good", "fair", "bad")}
    for entry in found["runs"]:
        assert entry["scores"]["dice"]["mean"] == pytest.approx(tables[entry["name"]]["dice"].mean())
    good, bad = tables["good"]["dice"], tables["bad"]["dice"]
    last = found["runs"][-1]
    assert last["difference"]["mean"] == pytest.approx((bad - good).mean())
    assert last["difference"]["low"] is None
    assert found["interval"] == f"no intervals: {IMAGES // 2} lesions, and {LEAST_LESIONS} are the least"
    assert last["won"] == pytest.approx((bad > good).mean())
    direct = paired_test(good, bad, tables["good"]["group"], draws=500)
    assert last["p"] == direct.p < 0.05
    assert last["wilcoxon"] == pytest.approx(direct.wilcoxon)
    assert last["effect_size"] == pytest.approx(-direct.effect_size)
    ps = [entry["p"] for entry in found["runs"][1:]]
    # Three pairs, for the best was found on the same images.
    assert min(entry["p_corrected"] for entry in found["runs"][1:]) == pytest.approx(3 * min(ps))
    assert found["lesions"] == IMAGES // 2
    assert "shown to be worse" in found["verdict"]
    assert "trained" not in found["verdict"], "these are masks of any program"
    assert found["protocol"][0] == ["Images", f"{IMAGES} of {IMAGES // 2} lesions"]
    assert found["protocol"][1][0] == "Set of images"
    gap = abs(last["difference"]["mean"])
    assert f"bad, by {gap:.4f} (too few lesions for an interval)" in found["verdict"]
    ranking = pd.read_csv(place / "comparison/ranking.csv")
    assert ranking["name"].tolist() == ["good", "fair", "bad"]
    differ = pd.read_csv(place / "comparison/differ.csv")
    assert len(differ) == IMAGES
    assert differ["difference"].abs().is_monotonic_decreasing
    assert differ["difference"].tolist() == pytest.approx((differ["fair"] - differ["good"]).tolist())
    assert found["differ"][0]["image_id"] == differ["image_id"][0]
    page = (place / "comparison/report.html").read_text()
    assert found["verdict"] in page
    assert "fair minus good" in page
    assert "Run minus the best" in page
    assert page.count("<figure") > 2, "figures and photographs"


def test_a_picture_that_was_damaged_since_is_left_out(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = place / "broken.png"
    broken.write_bytes(next((place / "truth").iterdir()).read_bytes()[:40])
    for table in place.glob("evaluations/*/files.csv"):
        pd.read_csv(table).assign(mask=str(broken)).to_csv(table, index=False)
    with caplog.at_level(logging.WARNING):
        compare(place, str(place / "evaluations"))
    assert "Left out of the pictures: " in caplog.text
    assert len(content(place)["runs"]) == 3


def test_the_least_lesions_of_an_interval_are_those_of_the_metric(place: Path) -> None:
    compare(place, str(place / "evaluations"), "metric=area_error")
    least = METRICS["area_error"].least_lesions
    assert least > LEAST_LESIONS
    assert content(place)["interval"] == f"no intervals: {IMAGES // 2} lesions, and {least:,} are the least"


def test_equal_predictions_are_not_shown_to_differ(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(place / "good", place / "twin")
    score(place, "twin")
    caplog.set_level("INFO")
    compare(place, f"[{place}/evaluations/good,{place}/evaluations/twin]")
    assert "no photographs: the best two runs score the same on every image." in caplog.text
    found = content(place)
    assert found["runs"][1]["p"] == 1
    assert found["runs"][1]["won"] == 0
    assert "none of the others is shown to be worse" in found["verdict"]


def test_of_a_distance_the_least_is_best(place: Path) -> None:
    compare(place, f"[{place}/evaluations/bad,{place}/evaluations/good]", "metric=hd95")
    found = content(place)
    assert [entry["name"] for entry in found["runs"]] == ["good", "bad"]
    good, bad = (pd.read_csv(place / f"evaluations/{name}/scores.csv")["hd95"] for name in ("good", "bad"))
    assert found["runs"][1]["won"] == pytest.approx((bad < good).mean())
    assert found["runs"][1]["difference"]["mean"] == pytest.approx((bad - good).mean())
    assert bad.mean() > good.mean()
    page = (place / "comparison/report.html").read_text()
    assert "good is better" in page
    assert ("bad is better" in page) == bool((bad < good).any())


def test_who_gives_up_on_hard_images_gains_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Distances to an empty mask are undefined; such images count as the diagonal, for tests and means."""
    quitter = place / "quitter"
    shutil.copytree(place / "good", quitter)
    scores = pd.read_csv(place / "evaluations/bad/scores.csv").set_index("image_id")["hd95"]
    hard = scores.nlargest(8).index
    for image_id in hard:
        Image.new("L", (50, 40)).save(quitter / f"{image_id}_segmentation.png")
    score(place, "quitter")
    assert "8 (33.3 %)" in capsys.readouterr().out
    own = pd.read_csv(place / "evaluations/quitter/scores.csv").set_index("image_id")["hd95"]
    assert own.mean() < scores.drop(hard).mean(), "by the images that it found something on it would win"
    compare(place, f"[{place}/evaluations/bad,{place}/evaluations/quitter]", "metric=hd95")
    found = content(place)
    assert [entry["name"] for entry in found["runs"]] == ["bad", "quitter"]
    entries = {entry["name"]: entry for entry in found["runs"]}
    assert entries["bad"]["scores"]["hd95"]["mean"] == pytest.approx(scores.mean())
    diagonal = np.hypot(50, 40)
    assert entries["quitter"]["scores"]["hd95"]["mean"] == pytest.approx(own.fillna(diagonal).mean())
    assert entries["quitter"]["p"] == paired_test(scores, own.fillna(diagonal), groups_of(place), draws=500).p
    assert entries["quitter"]["scores"]["hd95"]["undefined"] == 8
    assert entries["quitter"]["scores"]["hd95"]["n"] == 24, "the mean is over those, too"
    assert "bad has the best HD95" in found["verdict"]
    rule = "counts as its diagonal, or as 0 where both masks are empty"
    (stamp,) = found["stamps"]
    assert stamp.startswith(
        "UNDEFINED: HD95 without a value, since a mask is empty: quitter on 8 of 24 images"
    )
    console, page = capsys.readouterr().out, (place / "comparison/report.html").read_text()
    for said in (found["verdict"], stamp, console, page):
        assert rule in said
    assert "undefined on 8 of 24 images (33.3 %)" in page
    assert "undefined on 8 of 24 images (33.3 %)" in console
    ranking = pd.read_csv(place / "comparison/ranking.csv").set_index("name")
    assert ranking["scores.hd95.undefined"].to_dict() == {"bad": 0, "quitter": 8}
    images = pd.read_csv(place / "comparison/images.csv").set_index(["method", "image_id"])
    assert images.loc["quitter"].loc[hard, "undefined"].eq("hd95 hd95_percent assd assd_percent").all()
    assert images["undefined"].notna().sum() == 8


def test_nothing_at_all_is_the_worst_of_all(place: Path) -> None:
    write_masks(place / "nothing", spread=0)
    for path in (place / "nothing").iterdir():
        Image.new("L", (50, 40)).save(path)
    score(place, "nothing")
    for metric in ("hd95_percent", "assd", "nsd", "boundary_iou"):
        compare(place, f"[{place}/evaluations/bad,{place}/evaluations/nothing]", f"metric={metric}")
        assert [entry["name"] for entry in content(place)["runs"]] == ["bad", "nothing"]


def test_an_image_that_is_empty_for_all_is_agreement(place: Path) -> None:
    """Of an empty truth, a program that finds nothing is right and one that finds something is not."""
    for name in ("truth", "good"):
        Image.new("L", (50, 40)).save(place / name / "ISIC_0000000_segmentation.png")
    shutil.rmtree(place / "evaluations")
    for name in ("good", "bad"):
        score(place, name)
    compare(place, str(place / "evaluations"), "metric=hd95_percent")
    images = pd.read_csv(place / "comparison/images.csv").set_index(["method", "image_id"])["hd95_percent"]
    assert images["good"]["ISIC_0000000"] == 0
    assert images["bad"]["ISIC_0000000"] == 100
    compare(place, str(place / "evaluations"), "metric=area_error")
    assert content(place)["stamps"] == [
        "LEFT OUT: 1 of 24 images, whose true mask is empty, has no Area error"
    ]


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("dice", r"bad/scores\.csv has no dice of 3 images that others have one of, ISIC_0000000 first"),
        ("area_error", r"bad/scores\.csv has no area_error of 3 images that others have one of"),
        ("hd95", r"bad cannot be read \(hd95 is missing where neither mask is empty"),
    ],
)
def test_a_value_that_only_one_run_lacks_is_refused_whatever_the_metric(
    place: Path, metric: str, said: str
) -> None:
    path = place / "evaluations/bad/scores.csv"
    table = pd.read_csv(path)
    table.loc[:2, metric] = np.nan
    table.to_csv(path, index=False)
    with pytest.raises(SkinsegError, match=said):
        compare(place, str(place / "evaluations"), "metric=jaccard")


def groups_of(place: Path) -> pd.Series[str]:
    return pd.read_csv(place / "evaluations/bad/scores.csv")["group"]


def test_scores_of_other_settings_are_refused(place: Path) -> None:
    shutil.rmtree(place / "evaluations/bad")
    score(place, "bad", "tolerance_px=10")
    with pytest.raises(SkinsegError, match=r"different settings of the scores .*tolerance_px=2.*=10"):
        compare(place, f"[{place}/evaluations/good,{place}/evaluations/bad]")


def test_programs_whose_folders_bear_one_name(place: Path) -> None:
    for name in ("good", "bad"):
        (place / f"p_{name}").mkdir()
        shutil.copytree(place / name, place / f"p_{name}/out")
        what = [
            f"predictions={place}/p_{name}/out",
            f"truth={place / 'truth'}",
            f"run_dir={place}/e/{name}/x",
        ]
        evaluate(compose([*what, "workers=0", "draws=200", "gallery=1"], "evaluate"))
    compare(place, str(place / "e"))
    assert [entry["name"] for entry in content(place)["runs"]] == ["out (good/x)", "out (bad/x)"]


def test_without_photographs_it_says_so(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name in ("good", "fair", "bad"):
        shutil.rmtree(place / f"evaluations/{name}/masks")
    compare(place, str(place / "evaluations"))
    assert "no photographs: the best two runs have kept no masks" in caplog.text


def other_truth(place: Path) -> None:
    write_masks(place / "truth2", spread=2)
    shutil.rmtree(place / "evaluations/bad")
    score(place, "bad", truth="truth2")


def fewer_images(place: Path) -> None:
    folder = place / "evaluations/bad"
    pd.read_csv(folder / "scores.csv").iloc[:-2].to_csv(folder / "scores.csv", index=False)


def other_identity(key: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        path = place / "evaluations/bad/evaluation.json"
        record = json.loads(path.read_text())
        record["identity"][key] = "other"
        path.write_text(json.dumps(record))

    return change


def without(key: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        path = place / "evaluations/bad/evaluation.json"
        record = json.loads(path.read_text())
        del record[key]
        path.write_text(json.dumps(record))

    return change


def in_a_spreadsheet(*, sep: str = ",", decimal: str = ".", **columns: Any) -> Callable[[Path], None]:
    """Returns a function that does to scores what a spreadsheet does that saves them."""

    def save(place: Path) -> None:
        path = place / "evaluations/bad/scores.csv"
        pd.read_csv(path).assign(**columns).to_csv(path, index=False, sep=sep, decimal=decimal)

    return save


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_truth, "different images or true masks"),
        (other_identity("settings"), "different settings of the scores"),
        (fewer_images, r"24 images and .*bad of 22; 2 are missing.*ISIC_0000022"),
        (other_identity("split"), "same images and masks, but say otherwise which images show one lesion"),
        (other_identity("side"), "different subsets .*other"),
        (without("identity"), "lacks 'identity'"),
        (lambda p: (p / "evaluations/bad/scores.csv").write_text(""), r"bad\S* cannot be read"),
        (
            in_a_spreadsheet(sep=";", decimal=","),
            r"scores\.csv is not as skinseg wrote it \(no column group; no column image_id\)",
        ),
        (
            in_a_spreadsheet(dice=lambda t: t["dice"].map("{:.3f}".format).str.replace(".", ",")),
            "dice holds texts",
        ),
        (in_a_spreadsheet(dice=lambda t: 1000 * t["dice"]), "dice holds numbers that it cannot have"),
        (in_a_spreadsheet(group=None), "no value of group in some rows"),
        (lambda p: (p / "evaluations/bad/evaluation.json").write_text("{"), r"bad\S* cannot be read"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(
    place: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(place)
    with pytest.raises(SkinsegError, match=said) as error:
        compare(place, f"[{place}/evaluations/good,{place}/evaluations/bad]")
    assert "evaluations/bad" in str(error.value)
    assert not (place / "comparison").exists()


@pytest.mark.parametrize(
    ("runs", "overrides", "said"),
    [
        ("[{0}/good]", [], "found 1 run"),
        ("[{0}/good,{0}/good]", [], "more than once"),
        ("[{0}/good,{0}/nothing]", [], "is no folder"),
        ("[{0}/good,{0}/../truth]", [], "holds no scores"),
        ("{0}", ["metric=dise"], "metric=dise: unknown; known: dice"),
        ("{0}", ["metric=ece"], "has no ece"),
        ("{0}", ["metric=area_bias"], "rank by area_error"),
        ("{0}", ["draws=3"], "draws=3: expected 100 or more"),
        ("{0}", ["level=2", "gallery=-1"], r"gallery=-1: expected 0 or more\.\nlevel=2: expected from 0\.5"),
        ("['']", [], r"runs\[0\] is empty"),
        ("{0}", ["colour=1"], "colour"),
        ("wandb:group", [], "wandb:<entity>/<project>/<group>"),
    ],
)
def test_mistakes(place: Path, runs: str, overrides: list[str], said: str) -> None:
    overrides = [f"+{override}" if override.startswith("colour") else override for override in overrides]
    with pytest.raises(SkinsegError, match=said):
        compare(place, runs.format(place / "evaluations"), *overrides)
    assert not (place / "comparison").exists()


# Trainings


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two losses, the first with two seeds, the second with one; and folds of both."""
    root = tmp_path_factory.mktemp("sweep")
    data = make_ham(root / "ham10000", 30)
    for loss, seed in (("bce", 0), ("bce", 1), ("dice", 0)):
        train_tiny(data, root / f"seeds/{loss}_{seed}", f"loss={loss}", f"name={loss}", f"seed={seed}")
    for loss in ("bce", "dice"):
        for fold in (0, 1):
            folds = [f"loss={loss}", f"name={loss}", "data.split.folds=2", f"data.split.fold={fold}"]
            train_tiny(data, root / f"folds/{loss}_{fold}", *folds)
    return root


def scores_of(folder: Path) -> pd.Series[float]:
    return pd.read_csv(folder / "scores.csv").set_index("image_id")["dice"].sort_index()


@pytest.mark.slow
def test_seeds_of_a_sweep_are_one_method(sweep: Path, tmp_path: Path) -> None:
    found = compare(tmp_path, str(sweep / "seeds"))
    members = {method.name: len(method.runs) for method in found.methods}
    assert members == {"bce": 2, "dice": 1}
    first, second, other = (scores_of(sweep / f"seeds/{name}") for name in ("bce_0", "bce_1", "dice_0"))
    entries = {entry["name"]: entry for entry in content(tmp_path)["runs"]}
    both = (first + second) / 2
    assert entries["bce"]["scores"]["dice"]["mean"] == pytest.approx(both.mean())
    lesions = pd.read_csv(sweep / "seeds/bce_0/scores.csv").set_index("image_id")["group"].sort_index()
    subsets = [[first, second], [other]]
    if both.mean() < other.mean():
        subsets.reverse()
    expected = paired_runs(*subsets, lesions, draws=500)
    worse = content(tmp_path)["runs"][1]
    assert worse["p"] == pytest.approx(expected.p)
    assert "lesions and seeds" in content(tmp_path)["test"]
    assert {row["key"]: row["values"] for row in content(tmp_path)["settings"]}["loss._target_"] == {
        "bce": "skinseg.models.losses.BCE",
        "dice": "skinseg.models.losses.Dice",
    }
    keys = {row["key"]: row["values"] for row in content(tmp_path)["settings"]}
    assert keys["loss.smooth"] == {"bce": "\N{EN DASH}", "dice": "1.0"}
    assert worse["wilcoxon"] is None, "it knows nothing of the spread between trainings"
    assert "not known of runs that were not evaluated" not in str(content(tmp_path)["protocol"])
    assert worse["parameters"] > 0
    assert worse["training_seconds"] > 0


def test_intervals_of_single_trainings_and_of_seeds(tmp_path: Path) -> None:
    number = LEAST_LESIONS
    values = 1 - np.random.default_rng(0).lognormal(-3, 0.7, number)
    areas = np.full(number, 5.0)

    def scored(method: str, seed: int, dice: NDArray[np.float64]) -> ScoredRun:
        ids = [f"I{index:03d}" for index in range(number)]
        table = pd.DataFrame({"image_id": ids, "group": ids, "dice": dice, "area_error": areas})
        identity = {"side": "test", "split": "s", "data": "d", "settings": "t", "training": f"{method}{seed}"}
        identity |= {"method": method, "seed": seed, "fold": None}
        return ScoredRun(tmp_path / f"{method}{seed}", method, identity, table, {}, {}, [])

    runs = [scored("a", 0, values), scored("a", 1, values - 0.3), scored("b", 0, values - 0.4)]
    how: dict[str, Any] = {"draws": 300, "level": 0.95, "seed": 0}
    found = Comparison(methods_of(runs, pool=True), "dice", **how).content
    first, second = found["runs"]
    ids = [f"I{index:03d}" for index in range(number)]
    alone = cluster_intervals(values - 0.4, ids, **how)
    assert (second["scores"]["dice"]["low"], second["scores"]["dice"]["high"]) == (
        alone.low[0],
        alone.high[0],
    )
    # Of two seeds Student's t has one degree of freedom, and would go far beyond what a Dice can be.
    assert run_intervals([values, values - 0.3], [ids, ids], **how).high[0] > 1
    assert (first["scores"]["dice"]["low"], first["scores"]["dice"]["high"]) == (0, 1)
    expected = paired_runs([values, values - 0.3], [values - 0.4], ids, **how)
    assert second["difference"]["low"] == -expected.high
    assert second["p"] == expected.p
    assert "bootstrap-t over 100 lesions" in found["interval"]
    assert "spread between runs" in found["interval"]
    one_by_one = Comparison(methods_of(runs, pool=False), "dice", **how).content["verdict"]
    assert "b, by 0.4000 (0.4000 to 0.4000)" in one_by_one
    area = Comparison(methods_of(runs, pool=True), "area_error", **how).content["runs"][0]["scores"]
    assert np.isnan(area["area_error"]["low"]), "100 lesions are too few for these"
    assert not np.isnan(area["dice"]["low"])


def test_a_failed_job_of_a_sweep_is_named(
    sweep: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(sweep / "seeds", tmp_path / "seeds")
    for name in ("scores.csv", "summary.json"):
        (tmp_path / "seeds/bce_1" / name).unlink()
    # What Hydra leaves in a run folder is no run.
    (tmp_path / "seeds/bce_0/.hydra").mkdir()
    (tmp_path / "seeds/bce_0/.hydra/config.yaml").write_text("")
    compare(tmp_path, str(tmp_path / "seeds"))
    assert f"{tmp_path / 'seeds/bce_1'} has no scores" in caplog.text
    assert caplog.text.count("has no scores") == 1
    assert ["Left out", "1 run without scores: bce_1"] in content(tmp_path)["protocol"]
    assert "1 run without scores: bce_1" in (tmp_path / "comparison/report.html").read_text()


def test_a_job_without_whole_scores_is_left_out_of_a_sweep_and_refused_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = {
        "failed": '{"failed": {"what": "scoring the test subset"}}',
        "torn": '{"na',
        "list": "[]",
        "odd": '{"failed": true}',
    }
    for name in (*records, "whole", "unwritten"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        (tmp_path / "sweep" / name / "scores.csv").write_text("image_id,group,dice\nI1,L1,0.5\n")
        (tmp_path / "sweep" / name / "config.yaml").touch()
    record = {"name": "a", "identity": {}, "costs": {}, "protocol": {"stamps": []}}
    for name, text in {**records, "whole": json.dumps(record)}.items():
        (tmp_path / "sweep" / name / "summary.json").write_text(text)
    found, unscored = load_runs([str(tmp_path / "sweep")])
    assert [run.folder.name for run in found] == ["whole"]
    assert sorted(path.name for path in unscored) == ["failed", "list", "odd", "torn", "unwritten"]
    assert all(str(path) in caplog.text for path in unscored)
    for name in records:
        with pytest.raises(SkinsegError, match=rf"runs: .*{name}.*Evaluate it: python"):
            load_runs([str(tmp_path / "sweep" / name)])
    # Below a sweep whose sweep.json is torn its jobs are found, with what they left out as done before.
    job = Job(0, [], [], tmp_path / "second/0", "", "skip", tmp_path / "sweep/whole", {})
    job.write()
    (tmp_path / "second/sweep.json").write_text("{")
    assert [run.folder for run in load_runs([str(tmp_path / "second")])[0]] == [tmp_path / "sweep/whole"]
    assert "sweep.json cannot be read" in caplog.text


def test_runs_of_one_method_are_one_score(sweep: Path, tmp_path: Path) -> None:
    runs = "[{0}/bce_0,{0}/bce_1]".format(sweep / "seeds")
    compare(tmp_path, runs)
    found = content(tmp_path)
    (entry,) = found["runs"]
    both = (scores_of(sweep / "seeds/bce_0") + scores_of(sweep / "seeds/bce_1")) / 2
    assert entry["scores"]["dice"]["mean"] == pytest.approx(both.mean())
    assert entry["difference"] is None
    assert "over 2 trainings: seeds" in found["verdict"]
    assert found["title"] == "bce: 2 trainings"
    assert found["differ"] == []
    images = pd.read_csv(tmp_path / "comparison/images.csv").set_index("image_id")
    assert images["dice"].sort_index().to_numpy() == pytest.approx(both.to_numpy())
    page = (tmp_path / "comparison/report.html").read_text()
    assert "2 trainings on the same" in page
    assert ["Budget", "10 steps for every training"] in found["protocol"]


def test_runs_one_by_one(sweep: Path, tmp_path: Path) -> None:
    found = compare(tmp_path, str(sweep / "seeds"), "pool=false")
    names = {method.name for method in found.methods}
    assert names == {"bce (bce_0)", "bce (bce_1)", "dice"}


def test_folds_are_one_table_of_all_images(sweep: Path, tmp_path: Path) -> None:
    compare(tmp_path, str(sweep / "folds"))
    found = content(tmp_path)
    assert "trainings of the folds" in found["test"]
    assert found["images"] == 60
    assert [entry["members"] for entry in found["runs"]] == [2, 2]
    for entry in found["runs"]:
        parts = [scores_of(sweep / f"folds/{entry['name']}_{fold}") for fold in (0, 1)]
        assert entry["scores"]["dice"]["mean"] == pytest.approx(pd.concat(parts).mean())


def rewrite(folder: Path, **identity: Any) -> None:
    record = json.loads((folder / "evaluation.json").read_text())
    record["identity"].update(identity)
    (folder / "evaluation.json").write_text(json.dumps(record))


def as_before(folder: Path) -> None:
    """Leaves of a training what one left before it ended as an evaluation does."""
    for name in ("evaluation.json", "files.csv", "calibration.csv", "MODEL_CARD.md"):
        (folder / name).unlink()
    shutil.rmtree(folder / "masks")
    table = pd.read_csv(folder / "scores.csv")
    front = ["image_id", "group", "diagnosis", *OVERLAP_METRICS]
    table[front].to_csv(folder / "scores.csv", index=False)


def test_seeds_of_folds_are_averaged_within_a_fold(sweep: Path, tmp_path: Path) -> None:
    """A second seed of each fold, made of the first one's scores."""
    shutil.copytree(sweep / "folds", tmp_path / "folds")
    for fold in (0, 1):
        other = shutil.copytree(sweep / f"folds/bce_{fold}", tmp_path / f"folds/bce_{fold}_again")
        rewrite(other, seed=1, training=str(other))
        table = pd.read_csv(other / "scores.csv")
        table.assign(dice=table["dice"] - 0.02).to_csv(other / "scores.csv", index=False)
    compare(tmp_path, str(tmp_path / "folds"))
    (entry,) = [entry for entry in content(tmp_path)["runs"] if entry["name"] == "bce"]
    parts = [scores_of(sweep / f"folds/bce_{fold}") for fold in (0, 1)]
    assert entry["members"] == 4
    assert entry["scores"]["dice"]["mean"] == pytest.approx(pd.concat(parts).mean() - 0.01)


def test_true_masks_are_compared_where_they_are_known(sweep: Path, tmp_path: Path) -> None:
    """An earlier training did not say which they were, and so does not excuse two that differ."""
    shutil.copytree(sweep / "seeds", tmp_path / "seeds")
    as_before(tmp_path / "seeds/bce_1")
    rewrite(tmp_path / "seeds/bce_0", data="a")
    rewrite(tmp_path / "seeds/dice_0", data="b")
    runs = ",".join(str(tmp_path / f"seeds/{name}") for name in ("bce_1", "bce_0", "dice_0"))
    with pytest.raises(SkinsegError, match=r"different images or true masks \(a and b\)"):
        compare(tmp_path, f"[{runs}]")


@pytest.mark.slow
def test_one_training_with_two_thresholds_is_refused(sweep: Path, tmp_path: Path) -> None:
    for threshold in (0.3, 0.5):
        what = [f"ckpt={sweep}/seeds/bce_0/checkpoints/best.ckpt", f"threshold={threshold}", "workers=0"]
        evaluate(compose([*what, "draws=200", f"run_dir={tmp_path / str(threshold)}"], "evaluate"))
    for pool in ("true", "false"):
        with pytest.raises(SkinsegError, match=r"of one training .*chosen on the test subset"):
            compare(tmp_path, f"[{tmp_path}/0.3,{tmp_path}/0.5]", f"pool={pool}")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("[{0}/seeds/bce_0,{0}/copy,{0}/seeds/dice_0]", "of one training"),
        ("[{0}/seeds/bce_0,{0}/again,{0}/seeds/dice_0]", "one method and one seed"),
        ("{0}/leaky", "folds of one method that share lesions"),
        ("[{0}/seeds/bce_0,{0}/folds/dice_0]", "different splits"),
        ("[{0}/folds/bce_0,{0}/folds/bce_1,{0}/folds/dice_0]", "different splits"),
    ],
)
def test_trainings_that_are_no_comparison(sweep: Path, tmp_path: Path, runs: str, said: str) -> None:
    shutil.copytree(sweep, tmp_path / "sweep")
    shutil.copytree(sweep / "seeds/bce_0", tmp_path / "sweep/copy")
    again = shutil.copytree(sweep / "seeds/bce_0", tmp_path / "sweep/again")
    rewrite(again, training="elsewhere")
    for name in ("bce_0", "bce_1", "dice_0", "dice_1"):
        leaky = shutil.copytree(sweep / f"folds/{name}", tmp_path / f"sweep/leaky/{name}")
        table = pd.read_csv(leaky / "scores.csv")
        table.assign(group=["L", *table["group"].tolist()[1:]]).to_csv(leaky / "scores.csv", index=False)
    with pytest.raises(SkinsegError, match=said):
        compare(tmp_path, runs.format(tmp_path / "sweep"))


def test_an_earlier_training_has_no_distances_until_it_is_evaluated(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "seeds", tmp_path / "seeds")
    for folder in (tmp_path / "seeds").iterdir():
        as_before(folder)
    with pytest.raises(SkinsegError, match=r"has no hd95; .*skinseg\.evaluate"):
        compare(tmp_path, str(tmp_path / "seeds"), "metric=hd95")
    compare(tmp_path, str(tmp_path / "seeds"))
    assert "not known of runs that were not evaluated" in str(content(tmp_path)["protocol"])


def test_trainings_are_compared_by_distances(sweep: Path, tmp_path: Path) -> None:
    compare(tmp_path, str(sweep / "seeds"), "metric=hd95")
    assert {"ece", "hd95"} <= content(tmp_path)["runs"][0]["scores"].keys()


def test_what_a_training_logged_gives_way_to_its_evaluation(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The host's answers are a stand-in's."""

    def run(name: str, job_type: str, folder: Path) -> Any:
        artifact = SimpleNamespace(
            type="evaluation", name="evaluation:v0",
            download=lambda root: shutil.copytree(folder, root, dirs_exist_ok=True),
        )  # fmt: skip
        return SimpleNamespace(name=name, id="0", job_type=job_type, logged_artifacts=lambda: [artifact])

    first, second = sweep / "seeds/bce_0", sweep / "seeds/dice_0"
    listed = [run("a", "train", first), run("again", "evaluate", first), run("b", "train", second)]
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=lambda *_, **__: listed))
    found = fetch_evaluations("me/skinseg/night", tmp_path)
    assert [place.parent.name for place in found] == ["again-0", "b-0"]


def test_evaluations_of_a_group_are_fetched(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The host's answers are a stand-in's; nothing here has spoken to a W&B server."""

    def artifact(name: str, kind: str = "evaluation", version: int = 0) -> Any:
        return SimpleNamespace(
            type=kind,
            name=f"{name}:v{version}",
            download=lambda root: shutil.copytree(place / "evaluations" / name, root, dirs_exist_ok=True),
        )

    def runs(path: str, filters: dict[str, str]) -> list[Any]:
        assert (path, filters) == ("me/skinseg", {"group": "night"})
        # The first one went on, and logged another evaluation.
        first = [artifact("good", version=10), artifact("fair", version=9), artifact("none", "model")]
        listed = {"a": first, "b": [artifact("bad")], "c": []}
        return [
            # Others of the group name their runs as they like.
            SimpleNamespace(
                name=f"../../{name}",
                id=f"id{name}",
                job_type="evaluate",
                logged_artifacts=lambda found=found: found,
            )
            for name, found in listed.items()
        ]

    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=runs))
    # Of an earlier call, which asked for another group.
    shutil.copytree(place / "evaluations/fair", tmp_path / "comparison/fetched/fair-idf/fair_v0")
    before = set(tmp_path.iterdir())
    compare(tmp_path, "wandb:me/skinseg/night")
    (fetched,) = tmp_path.rglob("fetched")
    assert len(list(fetched.iterdir())) == 3, "with that of the earlier call"
    assert len(set(tmp_path.iterdir()) - before) <= 1, "the comparison alone"
    assert [entry["name"] for entry in content(tmp_path)["runs"]] == ["good", "bad"]
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=lambda *_, **__: []))
    with pytest.raises(SkinsegError, match="no run of this group has an evaluation"):
        compare(tmp_path, "wandb:me/skinseg/night")
