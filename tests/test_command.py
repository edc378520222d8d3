"""What is said of a command line that Hydra refuses: what was meant, in words that can be pasted."""

from __future__ import annotations

import pytest
from hydra.errors import HydraException, OverrideParseException

from skinseg.config.command import _refuse_options
from skinseg.config.explain import explain
from skinseg.config.schema import RootConfig
from skinseg.errors import SkinsegError
from skinseg.evaluate import EvaluateConfig
from skinseg.predict import PredictConfig

SCHEMAS = {"train": RootConfig, "evaluate": EvaluateConfig, "predict": PredictConfig}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train modle=unet", "modle: unknown key of the root; did you mean model?"),
        ("train modle=unt", "did you mean model?"),
        ("train mod=max", "did you mean mode?"),
        ("train modle.encoder_name=resnet18", "did you mean model?"),
        ("train lr=0.1", "did you mean optimizer.lr?"),
        ("train learning_rate=0.1", "did you mean optimizer.lr?"),
        ("train epochs=3", "did you mean trainer.max_epochs?"),
        ("train batch_size=4", "did you mean data.batch_size?"),
        ("train checkpoint=x", "did you mean ckpt_path?"),
        ("train sead=many", "did you mean seed?"),
        ("evaluate checkpoint=x", "checkpoint: unknown key of the root; did you mean ckpt?"),
        ("evaluate ckpt=x batch_size=3", "did you mean data.batch_size?"),
        ("predict checkpoint=x input=y output=z", "did you mean ckpt?"),
        ("predict ckpt=x input=y out=z", "did you mean output?"),
        ("train ~logger", "~logger: it needs an option; for none: logger=none."),
        ("train ~logger=csv", "for none: logger=none."),
        ("train logger=null", "logger=null: it needs an option; for none: logger=none."),
        ("train ~callbacks", "known: default, ema, minimal, swa, upload."),
        ("train ~loger", "~loger: no such key; did you mean logger=none?"),
        ("train ~modle.encoder_name", "no such key; did you mean ~model.encoder_name?"),
        ("train ~logger.wandbb", "did you mean ~logger.wandb?"),
        ("train ~callbacks.worst_images.image", "did you mean ~callbacks.worst_images.images?"),
        ("train ~seed.x", "~seed.x: no such key; known: none."),
        ("train +loss=dice", "+loss=dice: there is one already; did you mean loss=dice?"),
        ("train ++model=unett", "did you mean model=unet?"),
        ("train +experiment=demo augment.transforms.affin.p=0.1", "did you mean augment.transforms.affine?"),
        ("train model=unett", "model=unett: no such option; did you mean model=unet? Known: "),
        ("train model=zzzzz", "model=zzzzz: no such option; known: "),
        ("train optimizer.rl=0.1", "did you mean optimizer.lr?"),
        ("train name=null sead=1", "name=null: Input should be a valid string."),
        ("train experiment=demo", "did you mean +experiment=demo?"),
        ("train sweep=losses", "did you mean +sweep=losses?"),
        ("train +experiment=dmeo", "no such option; did you mean +experiment=demo?"),
        ("train split@data.split=leson", "did you mean split@data.split=lesion?"),
        ("train logger=[csv,wandbb]", "did you mean 'logger=[csv,wandb]'?"),
        ("train hydra/launchr=parallel", "no such group; did you mean hydra/launcher?"),
        ("train augment/prt=hair", "did you mean augment/part?"),
        ("train hydra.swep.dir=x", "unknown key of hydra; did you mean hydra.sweep.dir?"),
        ("train hydra.run.dri=x", "unknown key of hydra.run; did you mean hydra.run.dir?"),
        ("train hydra.zzz=x", "hydra.zzz: unknown key of hydra; known: callbacks,"),
    ],
)
def test_what_was_meant(line: str, said: str) -> None:
    command, *words = line.split(" ")
    problems = explain(HydraException("In Hydra's own words."), words, command, SCHEMAS[command])
    assert [problem for problem in problems if said in problem], problems
    assert "In Hydra's own words." not in problems


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a=b -m seed=1,2", "seed=1,2: the overrides stand together; write -m before all of them."),
        ("a=b --multi-run seed=1,2", "--multi-run: no such option; did you mean --multirun?"),
        ("--config-dri=x", "--config-dri: no such option; did you mean --config-dir?"),
        ("--zzz", "--zzz: no such option; known: --help, -h,"),
        ("--experimental-rerun x", "--experimental-rerun unpickles a file"),
    ],
)
def test_options_that_are_none(line: str, said: str) -> None:
    with pytest.raises(SkinsegError) as refused:
        _refuse_options(line.split(" "))
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("line", ["-m a=b seed=1,2", "a=b seed=1,2 --multirun", "--cfg job a=b", ""])
def test_options_where_they_are_taken(line: str) -> None:
    _refuse_options(line.split())


def test_all_problems_of_groups_and_of_keys_at_once() -> None:
    words = ["~logger", "sweep=losses", "hydra.swep.dir=x", "sead=1", "~data.rot", "model=unett"]
    assert len(explain(HydraException(""), words)) == len(words)


def test_a_run_folder_is_no_problem_beside_another() -> None:
    for words in (["hydra.run.dir=x", "sead=1"], ["hydra.sweep.dir=x", "sead=1"]):
        (problem,) = explain(HydraException(""), words)
        assert problem.startswith("sead")


def test_what_hydra_can_delete_is_no_problem() -> None:
    (problem,) = explain(HydraException(""), ["~logger.wandb", "~optimizer.lr", "sead=1"])
    assert problem.startswith("sead")


def test_an_option_that_is_there_once_already() -> None:
    error = HydraException("model appears more than once in the final defaults list")
    (problem,) = explain(error, ["+model=unet"])
    assert problem == "+model=unet: there is one already; did you mean model=unet?"


@pytest.mark.parametrize(
    ("word", "command", "said"),
    [
        ("ckpt=a(b", "evaluate", "such as \"ckpt='a(b'\""),
        (
            "a run/best.ckpt",
            "predict",
            "expected <key>=<value>, such as \"ckpt='a run/best.ckpt'\"",
        ),
        (
            "a run/best.ckpt",
            "evaluate",
            "expected <key>=<value>, with one of the keys bins, ckpt,",
        ),
    ],
)
def test_a_word_that_cannot_be_read_is_shown_in_its_quotes(word: str, command: str, said: str) -> None:
    error = OverrideParseException(word, "LexerNoViableAltException: (")
    (problem,) = explain(error, [word], command, SCHEMAS[command])
    assert said in problem
    assert "LexerNoViableAlt" not in problem
