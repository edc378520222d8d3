"""Files that others may have written run no code: checkpoints, ensembles, jobs and plans of sweeps."""

from __future__ import annotations

import ast
import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, TINY, make_ham, train_tiny
from omegaconf import OmegaConf, open_dict

from skinseg import job
from skinseg.build import nets, nodes
from skinseg.build.trust import _KINDS, _NOT_NULL, check_stored, only_read
from skinseg.callbacks.writing import WholeCheckpointIO
from skinseg.config.compose import compose, plain
from skinseg.config.internals import _as_planned
from skinseg.ensemble import run as ensemble
from skinseg.errors import SkinsegError
from skinseg.evaluate import run as evaluate
from skinseg.inference.ensemble import join_checkpoints
from skinseg.predict import run as predict
from skinseg.quoting import literal
from skinseg.run.checkpoint import read_checkpoint
from skinseg.sweep.jobs import Job, fingerprint
from skinseg.train import main
from skinseg.train import run as train

TOUCH = "touch marker"
UNET = "segmentation_models_pytorch.Unet"
ENCODERS = "segmentation_models_pytorch.encoders"

# By what is wrong with it; each would leave a file named marker, or could.
BAD: dict[str, Any] = {
    "other package": {"_target_": "subprocess.getoutput", "cmd": TOUCH},
    "other name through a package": {"_target_": "logging.os.system", "command": TOUCH},
    "other name through a known package": {"_target_": "torch.os.system", "command": TOUCH},
    "other name through our modules": {"_target_": "skinseg.models.stored.pickle.loads", "data": b""},
    "builtin": {"_target_": "builtins.exec", "source": "open('marker', 'w')"},
    "partial": {"_target_": "functools.partial", "_args_": ["os.system", TOUCH]},
    "hydra's own": {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system"}},
    "hydra's lookup": {"_target_": "hydra.utils.get_method", "path": "os.system"},
    "our own builder": {"_target_": "skinseg.build.nets.network", "config": {}},
    "our own loader": {"_target_": "skinseg.build.nets.load_net", "path": "other.ckpt"},
    "function that loads": {"_target_": "segmentation_models_pytorch.from_pretrained", "path": "x"},
    "function of a known package": {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "x"},
    "method": {"_target_": f"{UNET}.from_pretrained", "path": "x"},
    "method of a class": {"_target_": "torch.nn.Module.apply"},
    "module made of source": {"_target_": "torch.fx.GraphModule", "root": {}, "graph": {}},
    "other kind": {"_target_": "albumentations.HorizontalFlip"},
    "other kind of function": {"_target_": "skinseg.models.schedulers.constant"},
    "abstract name": {"_target_": "torch.nn"},
    "nested": {"_target_": UNET, "classes": {"_target_": "os.system", "command": TOUCH}},
    "nested in a list": {"_target_": UNET, "decoder_channels": [{"_target_": "os.system", "command": TOUCH}]},
    "nested and not recursive": {
        "_target_": UNET, "_recursive_": False, "activation": {"_target_": "os.system", "command": TOUCH},
    },
    "nested of no constructor": {"_target_": UNET, "aux_params": {"x": {"_target_": "os.getcwd"}}},
    "file to load by a **kwargs": {"_target_": UNET, "checkpoint_path": "other.pth"},
    "encoder": {"_target_": f"{ENCODERS}.timm_universal.TimmUniversalEncoder", "name": "resnet18"},
    "encoder by a decoder's module": {
        "_target_": "segmentation_models_pytorch.decoders.unet.model.get_encoder", "name": "resnet18",
    },
    "head by a decoder's module": {
        "_target_": "segmentation_models_pytorch.decoders.unet.model.SegmentationHead", "in_channels": 1,
    },
    "encoder in a network": {
        "_target_": UNET, "encoder": {"_target_": f"{ENCODERS}.TimmUniversalEncoder", "name": "resnet18"},
    },
    "by position": {"_target_": "torch.nn.Identity", "_args_": [1]},
    "name that is no text": {"_target_": ["os.system"]},
    "no name": {"_target_": None},
    "object": {"_target_": UNET, "classes": torch.zeros(1)},
    "missing": {"_target_": UNET, "classes": "???"},
    "module beside the command": {"_target_": "payload.Net"},
    "name that would clear the terminal": {"_target_": "\x1b[2J"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a module that runs at import; returns the file that must not appear."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    marker = tmp_path / "marker"
    (tmp_path / "payload.py").write_text(f"open({str(marker)!r}, 'w').close()\nNet = print\n")
    return marker


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a data set and of a run on it."""
    root = tmp_path_factory.mktemp("trust")
    train_tiny(make_ham(root / "ham10000", 20), root / "run", "test=false")
    return root


Change = Callable[[dict[str, Any]], None]


def tampered(trained: Path, folder: Path, change: Change) -> Path:
    """Writes a copy of the run's checkpoint whose record somebody has changed."""
    checkpoint = read_checkpoint(trained / "run/checkpoints/best.ckpt", key="ckpt")
    change(checkpoint["skinseg"])
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    return path


def run_predict(trained: Path, ckpt: Path, *words: str) -> None:
    config = [f"ckpt={ckpt}", f"input={trained / 'ham10000'}", "output=masks", "run_dir=.", "num_workers=0"]
    predict(compose([*config, *words], "predict"))


def run_evaluate(trained: Path, ckpt: Path, *words: str) -> None:
    config = [f"ckpt={ckpt}", f"data.root={trained}", "run_dir=evaluation", "workers=0", "data.num_workers=0"]
    evaluate(compose([*config, "draws=100", "gallery=1", *words], "evaluate"))


def run_ensemble(trained: Path, ckpt: Path, *words: str) -> None:
    runs = f"[{trained / 'run'},{ckpt}]"
    ensemble(compose([f"runs={runs}", "run_dir=ensemble", *words], "ensemble"))


def run_train(key: str, trained: Path, ckpt: Path, *words: str) -> None:
    train_tiny(trained / "ham10000", Path("again"), "test=false", f"{key}={ckpt}", *words)


COMMANDS = {
    "predict": run_predict,
    "evaluate": run_evaluate,
    "ensemble": run_ensemble,
    "resume": partial(run_train, "ckpt_path"),
    "init_from": partial(run_train, "init_from"),
}


def model_is(node: Any) -> Change:
    def change(record: dict[str, Any]) -> None:
        record["config"]["model"] = node

    return change


@pytest.mark.parametrize("why", BAD)
def test_refused_before_anything_is_called(why: str, payload: Path) -> None:
    with pytest.raises(
        SkinsegError, match=r"evil is refused.*\n +model.*(expected|has no|not something)"
    ) as caught:
        check_stored({"model": BAD[why]}, ["model"], source="evil")
    assert str(caught.value).replace("\n", "").isprintable()
    assert not payload.exists()


ADDRESSES = [
    "hf-hub:a/b",
    "hf_hub:a/b",
    "local-dir:/tmp",
    "HF-Hub:a/b",
    "tu-hf-hub:a/b",
    " hf-hub:a/b",
    "hf-\nhub:a/b",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("place", ["encoder_name", "nested", "listed", "of a function"])
def test_no_network_is_loaded_from_where_a_file_says(address: str, place: str) -> None:
    node: dict[str, Any] = {
        "encoder_name": {"_target_": UNET, "encoder_name": address},
        "nested": {"_target_": UNET, "aux_params": {"x": {"y": address}}},
        "listed": {"_target_": UNET, "decoder_channels": [[address]]},
        "of a function": {
            "_target_": "skinseg.models.networks.build_network", "options": {"encoder_name": address},
        },
    }[place]  # fmt: skip
    with pytest.raises(SkinsegError, match="expected no address"):
        check_stored({"model": node}, source="evil")


@pytest.mark.parametrize("key", sorted(_NOT_NULL))
@pytest.mark.parametrize("node", [None, {}, "", [], 0, False])
def test_what_is_built_is_not_left_empty(key: str, node: Any) -> None:
    with pytest.raises(SkinsegError, match=rf"evil is refused.*\n +{key}: no _target_"):
        check_stored({key: node}, [key], source="evil")


@pytest.mark.parametrize("key", _KINDS)
@pytest.mark.parametrize("why", ["other package", "other name through a known package", "nested"])
def test_refused_in_each_place(key: str, why: str, payload: Path) -> None:
    node = {"name": BAD[why]} if key in ("callbacks", "logger") else BAD[why]
    with pytest.raises(SkinsegError, match=rf"{key}[.\w]*_target_=|{key}[.\w]*: "):
        check_stored({key: node}, source="evil")
    assert not payload.exists()


PLACES: dict[str, Change] = {
    "model": model_is(BAD["other package"]),
    "model by another name": model_is(BAD["other name through a package"]),
    "model beside the command": model_is(BAD["module beside the command"]),
    "in the model": lambda record: record["config"]["model"].update(classes=BAD["other package"]),
    "preprocess": lambda record: record["config"]["preprocess"].update(
        transforms={"x": BAD["other package"]}
    ),
    "member": lambda record: record.update(members=[{**record["config"], "model": BAD["other package"]}]),
    "no configuration": lambda record: record.update(config=["x"]),
    "no network": model_is(None),
    "no data": lambda record: record["config"].update(data=None),
    "no image size": lambda record: record["config"]["data"].pop("image_size"),
    "no trainer": lambda record: record["config"].update(trainer=None),
    "no seed": lambda record: record["config"].pop("seed"),
    "no loss": lambda record: record["config"].pop("loss"),
    "no constructor": lambda record: record["config"].update(model={"encoder_name": "resnet18"}),
}


# Each place by one command, and by the others one in each shape of record: they read it in the same way.
EVERYWHERE = ("model", "in the model", "member", "no configuration")


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (command, place)
        for command in COMMANDS
        for place in PLACES
        if command == "predict" or place in EVERYWHERE
    ],
)
def test_no_command_runs_what_a_checkpoint_names(
    command: str, place: str, trained: Path, tmp_path: Path, payload: Path
) -> None:
    ckpt = tampered(trained, tmp_path / "evil", PLACES[place])
    with pytest.raises(SkinsegError, match=r"best\.ckpt is refused|holds no configuration"):
        COMMANDS[command](trained, ckpt)
    assert not payload.exists()
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_what_trained_a_network_is_not_built_to_apply_it(
    command: str, trained: Path, tmp_path: Path, payload: Path
) -> None:
    def change(record: dict[str, Any]) -> None:
        for key in ("loss", "optimizer", "scheduler"):
            record["config"][key] = BAD["other package"]

    COMMANDS[command](trained, tampered(trained, tmp_path / "changed", change))
    assert not payload.exists()


@pytest.mark.parametrize("key", ["reader", "cache_dir"])
def test_evaluate_reads_no_data_as_a_strangers_function_does(
    key: str, trained: Path, tmp_path: Path, payload: Path
) -> None:
    node = {**BAD["other package"], "_partial_": True}
    ckpt = tampered(trained, tmp_path / "evil", lambda record: record["config"]["data"].update({key: node}))
    with pytest.raises(SkinsegError, match=rf"data is refused.*\n +data\.{key}\._target_=subprocess"):
        run_evaluate(trained, ckpt)
    assert not payload.exists()


DRAWN = {
    "_target_": "skinseg.data.synthetic.read_synthetic",
    "_partial_": True,
    "lesions": 2,
    "width": 32,
    "height": 32,
}


@pytest.mark.parametrize("key", ["data", "test_data"])
def test_evaluate_draws_nothing_where_a_strangers_file_says(key: str, trained: Path, tmp_path: Path) -> None:
    """What is drawn there already is read; below a folder of the user's own it is drawn."""
    elsewhere = tmp_path / "elsewhere"

    def change(record: dict[str, Any]) -> None:
        places = {"root": str(elsewhere), "cache": "memmap", "cache_dir": str(tmp_path / "cache")}
        record["config"]["test_overlap"] = "keep"
        record["config"][key] = {**record["config"]["data"], **places, "reader": DRAWN}

    words = [f"ckpt={tampered(trained, tmp_path / 'evil', change)}", "run_dir=evaluation", "workers=0"]
    with pytest.raises(SkinsegError, match=r"not there, and are drawn only below a folder that you name"):
        evaluate(compose(words, "evaluate"))
    assert not elsewhere.exists()
    for more in ([f"data.root={tmp_path / 'own'}"], []):
        if not more:
            shutil.move(tmp_path / "own", elsewhere)
        if key == "data":
            with pytest.raises(SkinsegError, match="are not in the data"):
                evaluate(compose([*words, *more], "evaluate"))
        else:
            evaluate(compose([*words, *more, "draws=100", "gallery=1"], "evaluate"))
    assert not (tmp_path / "cache").exists()


def test_no_data_set_out_of_a_file_draws_wherever_it_is_named() -> None:
    nested = {
        "_target_": "skinseg.data.datamodule.LesionDataModule",
        "readers": [{"x": DRAWN}],
        "cache": "ram",
    }
    assert only_read(nested, draw=False)["readers"] == [{"x": {**DRAWN, "draw": False}}]
    assert only_read(nested, draw=True)["readers"] == [{"x": DRAWN}]
    stored = {**nested, "readers": [{"x": {**DRAWN, "draw": True}}]}
    assert only_read(stored, draw=False) == only_read(nested, draw=False)


def test_evaluate_keeps_no_images_where_a_strangers_file_says(trained: Path, tmp_path: Path) -> None:
    places = {"cache": "memmap", "cache_dir": str(tmp_path / "cache"), "cache_check": "content"}
    ckpt = tampered(trained, tmp_path / "evil", lambda record: record["config"]["data"].update(places))
    run_evaluate(trained, ckpt, "data.verify=true")
    assert (tmp_path / "evaluation/evaluation.json").is_file()
    assert not (tmp_path / "cache").exists()


def test_a_member_of_an_ensemble(trained: Path, tmp_path: Path, payload: Path) -> None:
    """The ensemble itself was written by somebody else."""
    good = read_checkpoint(trained / "run/checkpoints/best.ckpt", key="ckpt")
    joined = join_checkpoints({"a": good, "b": copy.deepcopy(good)}, name="x", run_dir="x")
    joined["skinseg"]["members"][1] = {**good["skinseg"]["config"], "model": BAD["other package"]}
    torch.save(joined, "ensemble.ckpt")
    for command in (run_predict, run_evaluate):
        with pytest.raises(SkinsegError, match=r"subprocess\.getoutput"):
            command(trained, tmp_path / "ensemble.ckpt")
    assert not payload.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["config"]["data"].update(batch_size=BAD["nested"]), ["find=batch_size"]),
        (lambda record: record["config"]["optimizer"].update(lr=BAD["other package"]), ["find=lr"]),
        (lambda record: record["config"]["optimizer"].update(lr="fast"), ["find=lr"]),
        (lambda record: record.update(wandb_run=BAD["other package"]), ["logger=[wandb]"]),
        (lambda record: record.update(wandb_run={"_target_": "builtins.open", "file": "marker", "mode": "w"}),
         ["logger=[wandb]"]),
    ],
    ids=["batch size", "rate", "rate that is none", "W&B", "W&B, opened"],
)  # fmt: skip
def test_what_a_resumed_run_takes_over_is_no_node(
    change: Change, words: list[str], trained: Path, tmp_path: Path, payload: Path
) -> None:
    ckpt = tampered(trained, tmp_path / "evil", change)
    with pytest.raises((SkinsegError, TypeError, ValueError)):
        run_train("ckpt_path", trained, ckpt, "trainer.max_epochs=2", *words)
    assert not payload.exists()


class Touch:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (TOUCH,)


def test_lightning_unpickles_nothing(tmp_path: Path, payload: Path) -> None:
    """Neither does an object of Python's own, nor where Lightning would take a path for an address."""
    torch.save({"callbacks": Touch()}, "evil.ckpt")
    for path in ("evil.ckpt", f"file://{tmp_path}/evil.ckpt"):
        for weights_only in (None, False):
            with pytest.raises(Exception, match=r"[Ww]eights.only"):
                WholeCheckpointIO().load_checkpoint(path, weights_only=weights_only)
    assert not payload.exists()
    with pytest.raises(SkinsegError, match="not a whole checkpoint"):
        nets.load_net("evil.ckpt")
    assert not payload.exists()


def test_a_stored_text_is_taken_literally(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an environment variable nor another key is filled in."""
    monkeypatch.setenv("SECRET", "my password")
    texts = [
        "${oc.env:SECRET}",
        "${hydra:runtime.cwd}",
        "\\${name}",
        "a\\\\${oc.env:SECRET}",
        "${",
        "${..lr}",
    ]
    config = {"name": texts, "data": {"root": texts[0]}}
    assert plain(OmegaConf.create(literal(config))) == config  # type: ignore[arg-type]
    built = nodes.instance("x", {"_target_": "builtins.dict", "texts": texts, "nested": {"x": texts[1]}})
    assert built == {"texts": texts, "nested": {"x": texts[1]}}
    ckpt = tampered(
        trained, tmp_path / "evil", lambda record: record["config"].update(name="${oc.env:SECRET}")
    )
    run_ensemble(trained, ckpt, "name=${oc.env:HOME}")
    assert "my password" not in (tmp_path / "ensemble/config.yaml").read_text()


def test_no_encoder_weights_are_fetched_for_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node without a word of them would have those of ImageNet, or of what the encoder's name leads to."""
    asked: list[dict[str, Any]] = []

    def network(constructor: object, options: dict[str, Any], **_: Any) -> torch.nn.Module:
        asked.append(dict(options))
        return torch.nn.Identity()

    monkeypatch.setattr(nets, "build_network", network)
    config = plain(compose(["run_dir=."]))
    del config["model"]["encoder_weights"]
    inner = {"_target_": UNET, "encoder_weights": "imagenet", "nested": [{"pretrained": True}]}
    config["model"]["aux_params"] = {"x": inner, "y": {"_target_": f"{ENCODERS}.TimmUniversalEncoder"}}
    monkeypatch.setattr(nodes, "_built", lambda _, value: value)
    nets._trained_network(config)
    assert asked[0]["encoder_weights"] is None
    x, y = asked[0]["aux_params"].values()
    assert x["encoder_weights"] is None
    assert x["nested"] == [{"pretrained": None}]
    assert y["pretrained"] is None


# ---------------------------------------------------------------- what has to go on working


def test_a_pruned_trial_may_be_read_back() -> None:
    pruner = plain(compose(["+sweep=hpo", "run_dir=."]))["search"]["pruner"]
    trial = {"_target_": "skinseg.callbacks.pruning.ReportTrial", "study": "x", "trial": 1, "monitor": "x"}
    check_stored({"callbacks": {"trial": {**trial, "pruner": pruner}}}, source="job.json")


OWN = '''
from collections.abc import Sequence
from os import system
import torch
from torch import nn

class Net(nn.Module):
    size_step = 1

    def __init__(self, width: int, **more):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1))

    def forward(self, x):
        return self.layers(x)

class NoNet:
    def __init__(self, width: int): pass

def unsaid(width): return Net(width)
def said(width) -> nn.Module | None: return Net(width)
def other(width) -> int: return width
'''  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own_networks.py").write_text(OWN)
    sys.modules.pop("own_networks", None)
    return "own_networks"


@pytest.mark.parametrize(
    ("name", "fits"),
    [("Net", True), ("unsaid", True), ("said", True), ("NoNet", False), ("other", False), ("system", False),
     ("Net.forward", False), ("torch.os.system", False), ("nn.Identity", True)],
)  # fmt: skip
def test_a_trusted_package_gives_what_is_expected(own: str, name: str, fits: bool) -> None:
    node = {"_target_": f"{own}.{name}", **({"width": 4} if name != "nn.Identity" else {})}
    if fits:
        check_stored({"model": node}, source="x", trust=own)
        check_stored({"model": node}, source="x", trust=["another", own])
    else:
        with pytest.raises(SkinsegError, match=r"model\._target_=own_networks"):
            check_stored({"model": node}, source="x", trust=own)
    with pytest.raises(SkinsegError, match="trust=<package>"):
        check_stored({"model": node}, source="x", trust=["own", "own_networks2"])


@pytest.mark.parametrize(
    "package", ["os", "subprocess", "builtins", "os.path", "", "my package", "a;b", "../x"]
)
def test_what_is_no_package_of_networks_is_not_trusted(package: str) -> None:
    with pytest.raises(SkinsegError, match="trust="):
        check_stored({}, source="x", trust=[package])


@pytest.mark.slow
def test_ones_own_network_from_training_to_scores(own: str, trained: Path, tmp_path: Path) -> None:
    """A word is needed where a file alone names it, none where the command line does."""

    def train_own(folder: str, *words: str) -> Path:
        cfg = compose([*TINY, f"data.root={trained / 'ham10000'}", f"run_dir={folder}", "test=false", *words])
        with open_dict(cfg):
            cfg.model = {"_target_": f"{own}.Net", "width": 4}
        train(cfg)
        return tmp_path / folder / "checkpoints"

    ckpt = train_own("run") / "best.ckpt"
    more = train_own("more", f"init_from={ckpt}") / "best.ckpt"
    train_own("on", f"ckpt_path={ckpt.with_name('last.ckpt')}", "trainer.max_epochs=2")
    for command in (run_predict, run_evaluate):
        with pytest.raises(SkinsegError, match=rf"{own}\.Net: expected .*(\n.*)*trust=<package>"):
            command(trained, ckpt)
        command(trained, ckpt, f"trust={own}")
    runs = f"runs=[{ckpt},{more}]"
    with pytest.raises(SkinsegError, match="trust="):
        ensemble(compose([runs, "run_dir=both"], "ensemble"))
    joined = ensemble(compose([runs, "run_dir=both", f"trust=[{own}]"], "ensemble"))
    run_predict(trained, joined, f"trust={own}", "output=joined")
    assert (
        len(list((tmp_path / "joined").glob("*.png"))) == len(list((tmp_path / "masks").glob("*.png"))) == 40
    )


# ---------------------------------------------------------------- jobs of a sweep


def write_job(folder: Path, change: Change) -> Path:
    config = plain(compose([*TINY, "data=synthetic", "data.root=.", f"run_dir={folder}"]))
    change(config)
    Job(0, [], [], folder, fingerprint(config), "start", None, config).write()
    return folder


def call_job(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["job", *words])
    return job.main()


def test_a_job_runs_nothing_of_a_stranger(
    own: str,
    tmp_path: Path,
    payload: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def change(config: dict[str, Any]) -> None:
        config["callbacks"]["checkpoint"] = BAD["other package"]
        config["logger"] = {"csv": BAD["other name through a package"]}
        config["augment"] = {"_target_": f"{own}.unsaid", "width": 1}
        config["search"] = {"sampler": {"_target_": "payload.Net"}}
        config["trust"] = [own, "payload"]  # not for the file to say

    folder = str(write_job(tmp_path / "job", change))
    assert call_job(monkeypatch, folder) == 2
    said = capsys.readouterr().err
    for part in (
        "job.json is refused",
        "callbacks.checkpoint",
        "logger.csv",
        "augment._target_=own_networks",
    ):
        assert part in said
    assert not payload.exists()
    assert call_job(monkeypatch, folder, f"trust=another,{own}") == 2
    assert "augment" not in capsys.readouterr().err
    for words in ([folder, "trust=os"], [folder, own], []):
        assert call_job(monkeypatch, *words) == 2


@pytest.mark.slow
def test_a_sweep_of_ones_own_network(own: str, trained: Path, tmp_path: Path) -> None:
    """Its jobs are trusted as far as its command line is, without a further word."""
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text(f"_target_: {own}.Net\nwidth: 4\n")
    words = ["--config-dir=conf", *TINY[1:], "model=mine", "seed=1,2", f"data.root={trained / 'ham10000'}"]
    paths = os.pathsep.join([str(REPOSITORY), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-m", "skinseg.train", "-m", *words, "hydra.sweep.dir=sweep", "test=false"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "sweep/1/checkpoints/best.ckpt").is_file()


@pytest.mark.parametrize(
    "words", [["--experimental-rerun", "config.pickle"], ["--experimental-rer=x", "a=1"]]
)
def test_hydra_unpickles_no_run(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *words])
    assert main() == 2
    assert "unpickles" in capsys.readouterr().err


def test_a_plan_that_somebody_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ".composed.json"
    path.write_text(json.dumps([[["seed=1"], "model: {_target_: os.system}"]]))
    with pytest.raises(SkinsegError, match="was changed since the sweep was planned"):
        _as_planned(path, "0" * 64, compose(["run_dir=."]), ["seed=1"])


# ---------------------------------------------------------------- the code


def test_one_way_to_read_a_checkpoint_and_none_to_unpickle() -> None:
    unsafe = {
        "pickle.loads", "pickle.load", "joblib.load", "cloudpickle.loads", "pd.read_pickle", "yaml.load",
        "yaml.unsafe_load", "np.load", "eval", "exec",
    }  # fmt: skip
    for path in sorted((REPOSITORY / "skinseg").rglob("*.py")):
        here = path.relative_to(REPOSITORY / "skinseg").as_posix()
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        calls = {ast.unparse(node.func): node for node in nodes if isinstance(node, ast.Call)}
        imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not calls.keys() & unsafe, here
        assert "torch.load" not in calls or "weights_only=True" in ast.unparse(calls["torch.load"]), here
        if "read_checkpoint" in imported:
            assert here == "build/trust.py", "trust.trusted_checkpoint looks at what a checkpoint names"
        if imported & {"instantiate", "get_object"}:
            assert here == "build/nodes.py", "nodes.instance builds"
