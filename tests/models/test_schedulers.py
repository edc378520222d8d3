"""The learning rate of each step, against closed forms and torch's own schedules, and across a resume."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from conftest import Train
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, PolynomialLR

from skinseg.config.compose import compose
from skinseg.errors import SkinsegError
from skinseg.models import schedulers
from skinseg.models.schedulers import StepAtValidation

LR = 0.1
Factory = Callable[[Optimizer, int], dict[str, Any]]
BY_STEPS: dict[str, Factory] = {
    "constant": schedulers.constant,
    "cosine": schedulers.cosine,
    "cosine_slow": partial(schedulers.cosine, warmup=0.5, final=0.1),
    "poly": schedulers.poly,
    "poly_warm": partial(schedulers.poly, power=2, warmup=0.3),
}
by_steps = pytest.mark.parametrize("name", BY_STEPS)


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # what torch has for misused schedules
        yield


def sgd(*rates: float) -> SGD:
    return SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates or (LR,)])


def rates(optimizer: Optimizer, scheduler: LRScheduler, steps: int) -> list[float]:
    """The learning rate of each step, and what is left after the last."""
    shown = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        shown.append(optimizer.param_groups[0]["lr"])
    return shown


def run(factory: Factory, total_steps: int, *, beyond: int = 0) -> list[float]:
    optimizer = sgd()
    return rates(optimizer, factory(optimizer, total_steps)["scheduler"], total_steps + beyond)


@pytest.mark.parametrize("total_steps", [1, 2, 3, 50])
def test_curves_without_warmup_are_those_of_torch(total_steps: int) -> None:
    optimizer = sgd()
    expected = rates(optimizer, CosineAnnealingLR(optimizer, total_steps, eta_min=0.2 * LR), total_steps)
    assert run(partial(schedulers.cosine, warmup=0, final=0.2), total_steps) == pytest.approx(expected)
    optimizer = sgd()
    expected = rates(optimizer, PolynomialLR(optimizer, total_steps, power=0.9), total_steps)
    assert run(schedulers.poly, total_steps) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("factory", [schedulers.cosine, schedulers.poly])
def test_warmup(factory: Callable[..., dict[str, Any]]) -> None:
    shown = run(partial(factory, warmup=0.2), 20)
    assert shown[:5] == pytest.approx([0.2 * LR, 0.4 * LR, 0.6 * LR, 0.8 * LR, LR])
    assert shown[4:] == sorted(shown[4:], reverse=True)
    assert shown[5] < LR
    # What follows is the whole curve, in the steps that are left.
    assert shown[4:] == pytest.approx(run(partial(factory, warmup=0), 16))


@pytest.mark.parametrize("total_steps", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.99])
@pytest.mark.parametrize(
    ("factory", "end"),
    [(schedulers.cosine, 0.0), (partial(schedulers.cosine, final=0.1), 0.1 * LR), (schedulers.poly, 0.0)],
)
def test_both_ends(
    factory: Callable[..., dict[str, Any]], end: float, warmup: float, total_steps: int
) -> None:
    shown = run(partial(factory, warmup=warmup), total_steps, beyond=3)
    assert all(rate > 0 for rate in shown[:total_steps])
    assert max(shown) == LR
    assert shown[total_steps:] == pytest.approx([end] * 4, abs=1e-12)


def test_constant() -> None:
    assert run(schedulers.constant, 3) == [LR] * 4


@by_steps
def test_groups_keep_their_ratio(name: str) -> None:
    optimizer = sgd(0.1, 0.01)
    scheduler = BY_STEPS[name](optimizer, 10)["scheduler"]
    for _ in range(10):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(10 * second)
        optimizer.step()
        scheduler.step()


@by_steps
def test_what_lightning_is_told_by_steps(name: str) -> None:
    config = BY_STEPS[name](sgd(), 10)
    assert isinstance(config.pop("scheduler"), LRScheduler)
    assert config == {"interval": "step", "frequency": 1}


def plateau(optimizer: Optimizer, total_steps: int, **options: Any) -> dict[str, Any]:
    return schedulers.plateau(
        optimizer, total_steps, **{"monitor": "val/dice", "mode": "max", "patience": 1, **options}
    )


def test_what_lightning_is_told_of_a_plateau() -> None:
    config = plateau(sgd(), 10)
    assert isinstance(config.pop("scheduler"), LRScheduler)
    assert config == {"interval": "epoch", "frequency": 1, "monitor": "val/dice", "strict": False}


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_lowers_after_its_patience(mode: str) -> None:
    optimizer = sgd()
    scheduler = plateau(optimizer, 10, mode=mode, factor=0.2)["scheduler"]
    shown = []
    for score in (0.5, 0.6, 0.6, 0.6, 0.7, 0.1, 0.1):
        optimizer.step()
        scheduler.step(score if mode == "max" else 1 - score)
        shown.append(optimizer.param_groups[0]["lr"])
    assert shown == pytest.approx([LR, LR, LR, 0.2 * LR, 0.2 * LR, 0.2 * LR, 0.04 * LR])


@pytest.mark.parametrize("name", [*BY_STEPS, "plateau"])
@pytest.mark.parametrize("stop", [1, 4, 9])
def test_resume_is_exact(name: str, stop: int) -> None:
    factory = {**BY_STEPS, "plateau": plateau}[name]
    scores = [0.1, 0.5, 0.5, 0.4, 0.4, 0.4, 0.6, 0.3, 0.3, 0.3, 0.2, 0.2]

    def start() -> tuple[nn.Parameter, Optimizer, Any]:
        weight = nn.Parameter(torch.ones(3))
        optimizer = Adam([weight], lr=LR)
        return weight, optimizer, factory(optimizer, len(scores))["scheduler"]

    def train(weight: nn.Parameter, optimizer: Optimizer, scheduler: Any, steps: range) -> list[float]:
        shown = []
        for step in steps:
            shown.append(optimizer.param_groups[0]["lr"])
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
            scheduler.step(*([scores[step]] if name == "plateau" else []))
        return shown

    weight, optimizer, scheduler = start()
    train(weight, optimizer, scheduler, range(stop))
    file = io.BytesIO()
    torch.save([weight.data, optimizer.state_dict(), scheduler.state_dict()], file)
    expected = train(weight, optimizer, scheduler, range(stop, len(scores)))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, optimizer, scheduler = start()
    resumed.data.copy_(saved[0])
    optimizer.load_state_dict(saved[1])
    scheduler.load_state_dict(saved[2])
    assert train(resumed, optimizer, scheduler, range(stop, len(scores))) == expected
    assert torch.equal(resumed, weight)
    if name != "constant":
        assert len(set(expected)) > 1  # a curve, or resuming it would be no feat


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (partial(schedulers.cosine, warmup=-0.1), "warmup=-0.1: expected a share"),
        (partial(schedulers.cosine, warmup=1.0), "warmup=1.0"),
        (partial(schedulers.cosine, warmup=float("nan")), "warmup=nan"),
        (partial(schedulers.cosine, final=-0.1), "final=-0.1"),
        (partial(schedulers.cosine, final=1.1), "final=1.1"),
        (partial(schedulers.poly, power=0), "power=0"),
        (partial(schedulers.poly, power=float("nan")), "power=nan"),
        (partial(schedulers.poly, warmup=5), "warmup=5"),
        (partial(plateau, factor=1.0), "factor=1.0"),
        (partial(plateau, factor=0), "factor=0"),
        (partial(plateau, patience=-1), "patience=-1"),
        (partial(plateau, mode="best"), "best"),
    ],
)
def test_arguments_out_of_range(factory: Factory, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factory(sgd(), 10)


@pytest.mark.parametrize("factory", [schedulers.cosine, schedulers.poly])
def test_a_run_without_steps(factory: Factory) -> None:
    with pytest.raises(ValueError, match="total_steps=0"):
        factory(sgd(), 0)


class Line(L.LightningModule):
    """Fits one weight, with the schedule of a configuration."""

    def __init__(self, *overrides: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.config = compose([*overrides, "run_dir=."])
        self.rates: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight * batch).square().sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/dice", torch.tensor(0.5))

    def on_train_batch_end(self, *_: Any) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        self.rates.append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        optimizer = instantiate(self.config.optimizer)(self.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": instantiate(self.config.scheduler)(optimizer, steps)}


def fitted(*overrides: str, epochs: int) -> list[float]:
    module = Line(*overrides)
    loader = torch.utils.data.DataLoader(torch.ones(6, 1), batch_size=1)
    trainer = L.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # of loaders without workers
        trainer.fit(module, loader, loader)
    return module.rates


def test_options_in_a_run() -> None:
    rate = 0.01
    assert fitted("optimizer=sgd", "scheduler=none", epochs=1) == [rate] * 6
    for option in ("cosine", "poly"):
        shown = fitted("optimizer=sgd", f"scheduler={option}", epochs=2)
        assert shown[0] == rate  # half of an optimizer step
        assert shown[-2] > 0
        assert shown[-1] == 0
    shown = fitted("optimizer=sgd", "scheduler=plateau", "scheduler.patience=0", epochs=3)
    assert shown == [rate] * 12 + [rate / 2] * 6


def test_plateau_follows_the_score_of_the_run() -> None:
    node = compose(["scheduler=plateau", "monitor=val/loss", "mode=min", "run_dir=."]).scheduler
    assert (node.monitor, node.mode) == ("val/loss", "min")


def test_a_score_that_nothing_logs() -> None:
    class Stepped(Line):
        def configure_callbacks(self) -> list[Callback]:
            return [StepAtValidation()]

    module = Stepped("optimizer=sgd", "scheduler=plateau", "monitor=val/jaccard")
    loader = torch.utils.data.DataLoader(torch.ones(6, 1), batch_size=1)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(
        SkinsegError, match=r"scheduler\.monitor=val/jaccard is not logged; there are val/dice"
    ):
        trainer.fit(module, loader, loader)


def test_a_schedule_that_lightning_takes_and_we_do_not(train: Train) -> None:
    own = [
        "scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR",
        "~scheduler.warmup",
        "~scheduler.final",
    ]
    with pytest.raises(
        SkinsegError, match="scheduler: CosineAnnealingLR is no schedule; expected a dictionary"
    ):
        train(*own)
