"""What may be built from a configuration that somebody else may have written: a checkpoint's, a job's.

A configuration names constructors, and to build from it is to call them. One that a user composes from conf/
and the command line is their own code. One that is read back from a file is taken for a stranger's: of what
it names only constructors of known packages are called, each being of the kind that is expected where it
stands. Names alone do not decide, for `logging.os.system` is another name of `os.system`: what a name leads
to is looked at.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skinseg.config.schema import Plain
from skinseg.config.targets import HYDRA_KEYS, KNOWN_LIBRARIES, TargetError, imported, imported_signature
from skinseg.errors import SkinsegError

_KNOWN = KNOWN_LIBRARIES | {"optuna"}
_PLAIN = (str, int, float, bool, types.NoneType)


@dataclass(frozen=True)
class _Kind:
    """What is expected at a place of a configuration.

    Attributes:
        bases: Dotted paths of classes: a subclass of one, or a function that says it returns one.
        packages: Whose constructors are called without a further word.
        within: What is expected of nodes below; None: the same.
        names: Packages in which a constructor of `packages` has a further name.
    """

    bases: tuple[str, ...]
    packages: tuple[str, ...]
    within: _Kind | None = None
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"a {' or '.join(self.bases)} of {', '.join(self.packages)}"


_SMP = "segmentation_models_pytorch"
# Not its encoders: the name of one may be an address or a folder, from which it would be loaded.
_MODEL = _Kind(("torch.nn.Module",), ("skinseg.models", f"{_SMP}.decoders", "torch.nn"), names=(_SMP,))
_LOSS = replace(_MODEL, packages=("skinseg.models", f"{_SMP}.losses", "torch.nn"))
# How timm knows a name that is one; it takes either case, and leaves out what is no letter.
_ADDRESS = re.compile(r"(hf[-_]hub|local-dir):", re.IGNORECASE)
_NO_LETTER = re.compile(r"[\x00-\x20]")
_TRANSFORM = _Kind(
    (
        "albumentations.BasicTransform",
        "albumentations.BaseCompose",
        "skinseg.data.transforms.batch_transforms.BatchTransform",
    ),
    ("skinseg.data", "albumentations"),
)
_DATA = _Kind(
    ("skinseg.data.datamodule.LesionDataModule",),
    ("skinseg.data",),
    within=_Kind(("skinseg.data.catalog.Catalog", "skinseg.data.splits.split.Split"), ("skinseg.data",)),
)
_KINDS = {
    "model": _MODEL,
    "loss": _LOSS,
    "optimizer": _Kind(("torch.optim.Optimizer",), ("torch.optim",)),
    "scheduler": _Kind(("builtins.dict",), ("skinseg.models.schedulers",)),
    "data": _DATA,
    "test_data": _DATA,
    "preprocess": _Kind(
        ("skinseg.data.transforms.preprocess.Preprocess",), ("skinseg.data",), within=_TRANSFORM
    ),
    "augment": replace(
        _TRANSFORM,
        bases=(*_TRANSFORM.bases, "skinseg.data.transforms.device_augment.DeviceAugment"),
        within=_TRANSFORM,
    ),
    "mix": _Kind(("skinseg.data.transforms.mix.Mix",), ("skinseg.data",)),
    "trainer": _Kind(
        ("lightning.Trainer",),
        ("lightning.Trainer", "lightning.pytorch"),
        within=_Kind(
            ("lightning.pytorch.strategies.Strategy", "lightning.pytorch.profilers.Profiler"),
            ("lightning.pytorch", "skinseg.models"),
        ),
    ),
    "callbacks": _Kind(
        ("lightning.pytorch.callbacks.Callback",),
        ("lightning.pytorch", "skinseg.callbacks"),
        within=_Kind(("optuna.pruners.BasePruner",), ("optuna.pruners",)),
    ),
    "logger": _Kind(
        ("lightning.pytorch.loggers.Logger",),
        ("lightning.pytorch", "skinseg.tracking"),
        names=("skinseg.callbacks.wandb_run",),
    ),
}
_BY_NAME = frozenset({"callbacks", "logger"})

PREDICTOR = ("model", "preprocess")
"""What is built of a checkpoint's configuration; see `nets.load_net`."""
_NOT_NULL = frozenset({"model", "loss", "optimizer", "scheduler", "data"})
# What of a configuration is looked up in its nodes.
_WITHIN: dict[str, set[str]] = {"data": {"image_size", "batch_size"}, "trainer": set()}
_NEEDED = {*_NOT_NULL, *_WITHIN, "seed", "threshold", "channels_last"}


def trusted(config: Plain) -> list[str]:
    """Returns the packages that somebody who has composed a configuration trusts.

    Args:
        config: Composed, not read back.

    Returns:
        Those of `trust`, and those whose constructors it names itself.

    Raises:
        SkinsegError: `trust` names no package, or one that holds no constructors for us.
    """
    named = {str(target).split(".")[0] for target in _targets(config)}
    return [*_packages(config["trust"]), *sorted(named - _KNOWN - sys.stdlib_module_names)]


def trusted_checkpoint(path: str | Path, *, key: str, trust: str | Sequence[str] = ()) -> dict[str, Any]:
    """Reads a checkpoint that names nothing but what may be built; see `checkpoint.read_checkpoint`.

    Args:
        path: The file.
        key: The config key that named it, for the message.
        trust: Further packages whose constructors may be called.

    Raises:
        SkinsegError: It cannot be read, or names something else.
    """
    from skinseg.run.checkpoint import read_checkpoint  # imports PyTorch
    from skinseg.run.record import upgrade

    checkpoint = read_checkpoint(path, key=key)
    record = checkpoint["skinseg"]
    configs = [record.get("config"), *record.get("members", ())] if isinstance(record, dict) else []
    if not configs or not all(map(_is_run, configs)):
        raise SkinsegError(f"{key}={path} holds no configuration of a run; take another checkpoint.")
    for config in configs:
        check_stored(upgrade(config), PREDICTOR, source=f"{key}={path}", trust=trust)
    return checkpoint


def _is_run(config: object) -> bool:
    if not isinstance(config, dict) or not config.keys() >= _NEEDED:
        return False
    if not isinstance(config["data"], dict) or not isinstance(config["data"].get("split") or {}, dict):
        return False
    return all(
        isinstance(config[key], dict) and config[key].keys() >= needed for key, needed in _WITHIN.items()
    )


def check_stored(
    config: Mapping[str, Any],
    keys: Iterable[str] | None = None,
    *,
    source: str,
    trust: str | Sequence[str] = (),
) -> None:
    """Refuses a configuration out of a file if what it would have built is not of a known kind and package.

    Nothing of it is called. A package is imported if it is known or trusted, for what a name stands for is
    looked at: a class, or a function of skinseg or of a trusted package. Arguments of the known libraries are
    those that their constructors have by name: what a `**kwargs` takes might load another file.

    Args:
        config: Plain values, which are taken literally.
        keys: What of it is built. None: a run's whole configuration is.
        source: Where it was read, for the message.
        trust: Further packages whose constructors may be called.

    Raises:
        SkinsegError: All that is refused is named, with what is expected in its place.
    """
    packages = _packages(trust)
    problems: list[str] = []
    for key in config if keys is None else keys:
        node = config.get(key)
        if key not in _KINDS:
            problems += (
                f"{_shown(key)}: names {_shown(one)}; nothing is built there." for one in _targets(node)
            )
        elif key in _BY_NAME and isinstance(node, dict) and "_target_" not in node:
            for name, child in node.items():
                problems += _problems(f"{key}.{_shown(name)}", child, _KINDS[key], packages)
        elif isinstance(node, dict) and "_target_" in node:
            problems += _problems(key, node, _KINDS[key], packages)
        elif node or key in _NOT_NULL:
            problems.append(f"{key}: no _target_; expected {_KINDS[key]}.")
    if problems:
        raise SkinsegError(
            "\n  ".join([f"{source} is refused: it names what is not built from a file.", *problems])
            + "\nIf it is code of your own, or of somebody whom you trust, name its package: "
            "trust=<package> or trust=[<package>,<another>]."
        )


def only_read(node: Any, *, draw: bool) -> Any:
    """Returns the node of a data set out of a file as one that writes nowhere that the file says.

    Args:
        node: That `check_stored` has passed.
        draw: Whether drawn images may be written below its root, for the user has named that.
    """
    own = {key: value for key, value in node.items() if not key.startswith("cache")}
    return own if draw else _undrawn(own)


def _undrawn(value: Any) -> Any:
    if isinstance(value, list):
        return [_undrawn(child) for child in value]
    if not isinstance(value, dict):
        return value
    children = {key: _undrawn(child) for key, child in value.items()}
    draws = "_target_" in value and "draw" in imported_signature(value["_target_"]).named
    return {**children, "draw": False} if draws else children


def _packages(trust: str | Sequence[str]) -> list[str]:
    packages = [trust] if isinstance(trust, str) else list(trust)
    for package in packages:
        parts = str(package).split(".")
        if not all(part.isidentifier() for part in parts) or parts[0] in sys.stdlib_module_names:
            raise SkinsegError(
                f"trust={package}: expected the name of a package with networks, losses or the like, such "
                "as trust=my_package."
            )
    return packages


def _targets(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield value["_target_"]
        for child in value.values():
            yield from _targets(child)
    elif isinstance(value, list):
        for child in value:
            yield from _targets(child)


def _problems(path: str, value: object, kind: _Kind, trust: Sequence[str]) -> Iterator[str]:
    """Yields what is wrong with a value and all that is nested in it."""
    if isinstance(value, dict):
        if "_target_" in value:
            refused = list(_node_problems(path, value, kind, trust))
            yield from refused
            if refused:
                return
        for key, child in value.items():
            yield from _problems(f"{path}.{_shown(key)}", child, kind.within or kind, trust)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _problems(f"{path}[{index}]", child, kind.within or kind, trust)
    elif not isinstance(value, _PLAIN) or value == "???":
        found = value if isinstance(value, str) else f"an object ({type(value).__name__})"
        yield f"{path}: found {found}; expected plain values."
    elif kind is _MODEL and isinstance(value, str) and _ADDRESS.search(_NO_LETTER.sub("", value)):
        yield f"{path}: found {_shown(value)}; expected no address from which a network is loaded."


def _node_problems(path: str, node: Mapping[str, Any], kind: _Kind, trust: Sequence[str]) -> Iterator[str]:
    target = node["_target_"]
    asked = f"{path}._target_={_shown(target)}: "
    if not isinstance(target, str) or not _within(target, (*kind.packages, *kind.names, *trust)):
        yield f"{asked}expected {kind}."  # and not even imported
        return
    try:
        found, signature = imported(target), imported_signature(target)
    except TargetError as error:
        yield f"{asked}{error}."
        return
    own = _within(_home(found), trust)
    if not _is_of(found, kind, own=own) or not _within(_home(found), (*kind.packages, *trust)):
        yield f"{asked}that is {_described(found)}; expected {kind}."
    elif not own:
        unknown = sorted(_shown(key) for key in node.keys() - signature.named - HYDRA_KEYS)
        if unknown:
            yield f"{path}: {target} has no {', '.join(unknown)}."


def _shown(value: object) -> str:
    """Returns a stranger's text for the terminal."""
    return str(value) if str(value).isprintable() else ascii(value)


def _within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _home(found: object) -> str:
    """Returns the module that defines an object, whatever name led to it."""
    return str(getattr(found, "__module__", ""))


def _described(found: object) -> str:
    name = f"{_home(found)}.{getattr(found, '__qualname__', type(found).__name__)}".strip(".")
    return f"{name} ({type(found).__name__})"


def _is_of(found: object, kind: _Kind, *, own: bool) -> bool:
    """Returns whether a constructor makes what is expected.

    Args:
        found: What a name stands for.
        kind: What is expected.
        own: Whether it is of a package that the user trusts, whose functions need not say what they return.
    """
    bases = tuple(imported(base) for base in kind.bases)
    if isinstance(found, type):
        return issubclass(found, bases)
    if not isinstance(found, types.FunctionType) or "." in found.__qualname__:
        return False
    if not own and not _within(_home(found), ("skinseg",)):
        return False
    returned = _returned(found)
    return own if returned is None else all(issubclass(one, bases) for one in returned)


def _returned(function: types.FunctionType) -> list[type] | None:
    """Returns the classes that a function says it returns, None aside; None where it does not say."""
    try:
        annotation = typing.get_type_hints(function).get("return", Any)
    except Exception:  # names that are only there for type checkers
        return None
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = typing.get_args(annotation) if union else (annotation,)
    classes = [typing.get_origin(option) or option for option in options if option is not types.NoneType]
    return classes if classes and all(inspect.isclass(one) and one is not Any for one in classes) else None
