"""Signatures read from source are those of the imported constructors, or are left to the import."""

from __future__ import annotations

import importlib
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from skinseg import config as config_module
from skinseg.config import config_dir, imported_signature
from skinseg.signatures import NotFollowedError, Signature, TargetError, read_signature

TARGETS = sorted(
    {
        target
        for path in config_dir().rglob("*.yaml")
        for target in re.findall(r"^\s*_target_: (\S+)", path.read_text(), re.MULTILINE)
        # Not asked for its signature, and samplers and pruners by an import, which is no long one.
        if target != "skinseg.command.RefuseEarly" and not target.startswith("optuna.")
    }
)
# Of each kind that a parameter may refuse.
VALUES = (None, True, 3, -0.5, "no", "text", [1, 2], [0.5], ["a"], [[1, 2], [3, 4]], {"a": 1}, {"a": None})


def verdicts(signature: Signature, name: str) -> list[str]:
    """What `check` says of each value."""
    if name not in signature.types:
        return []
    kind = signature.types[name]
    return [text for value in VALUES for text in config_module._type_problem(name, {name: value}, name, kind)]


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_of_the_configuration_is_followed(target: str) -> None:
    static, real = read_signature(target), imported_signature(target)
    assert static == real
    for name in real.named:
        if (target, name) == ("skinseg.data.device_augment.DeviceAugment", "transforms"):
            # Classes of values are told from source, what is wrong with these values is not.
            assert verdicts(static, name) == []
        else:
            # A class that is not followed may take texts; one that is imported is known not to.
            only_real = [text for text in verdicts(real, name) if text not in verdicts(static, name)]
            assert all(text.endswith("Input should be a number.") for text in only_real), name
            assert verdicts(static, name) == [x for x in verdicts(real, name) if x not in only_real], name


@pytest.mark.parametrize(
    "module",
    [
        "albumentations",
        "lightning",
        "lightning.pytorch.callbacks",
        "lightning.pytorch.loggers",
        "segmentation_models_pytorch",
        "segmentation_models_pytorch.losses",
        "torch.nn",
        "torch.optim",
        "torch.optim.lr_scheduler",
        "skinseg.data.augment",
        "skinseg.models.boundary_losses",
        "skinseg.models.light_unets",
        "skinseg.models.losses",
        "skinseg.models.robust_losses",
        "skinseg.models.schedulers",
        "skinseg.models.unets",
    ],
)
def test_nothing_that_is_there_is_said_to_be_absent_or_other_than_it_is(module: str) -> None:
    followed = 0
    for name in dir(importlib.import_module(module)):
        if not name.isidentifier() or name.startswith("__"):
            continue
        target = f"{module}.{name}"
        try:
            static = read_signature(target)
        except NotFollowedError:
            continue
        assert static == imported_signature(target), target
        followed += 1
    assert followed, "none is followed"


def test_an_absent_one_is_known_without_an_import() -> None:
    with pytest.raises(TargetError, match=r"no Dize in skinseg\.models\.losses; did you mean Dice\?"):
        read_signature("skinseg.models.losses.Dize")
    with pytest.raises(TargetError, match=r"there is no module skinsge; did you mean skinseg\?"):
        read_signature("skinsge.models.losses.Dice")


Write = Callable[[str], str]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Returns a function that writes a module of a user, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        name = f"theirs_{abs(hash((str(tmp_path), source)))}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return name

    return write


FOLLOWED = {
    "inherited, the nearest in a diamond": """
        class Root:
            def __init__(self, root: int) -> None: ...
        class Left(Root): ...
        class Right(Root):
            def __init__(self, right: str, *, deep: bool = False) -> None: ...
        class Thing(Left, Right): ...
        """,
    "no constructor at all": """
        class Thing:
            value = 3
        """,
    "a decorator that wraps": """
        import functools
        def logged(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper
        @logged
        def Thing(width: int, height: int = 3, **rest: object) -> None: ...
        """,
    "positional only": "def Thing(first, /, second, *others, third=None): ...",
    "another name": """
        def Other(width): ...
        Thing = Other
        """,
    "the last of two": """
        def Thing(old): ...
        def Thing(new): ...
        """,
    "overloads": """
        import typing
        @typing.overload
        def Thing(x: int) -> int: ...
        @typing.overload
        def Thing(x: str) -> str: ...
        def Thing(x): return x
        """,
    "types behind names": """
        from __future__ import annotations
        from typing import Literal, Optional, Union
        Small = Literal["s", "m"]
        Size = Union[Small, int]
        class Unit: ...
        def Thing(size: Size, unit: Optional[Unit] = None, rates: "list[float]" = ()): ...
        """,
    "dataclasses, of which one has another's fields": """
        from __future__ import annotations
        import dataclasses
        from dataclasses import dataclass, field
        from typing import ClassVar
        @dataclass
        class Base:
            width: int
            kind: ClassVar[str] = "x"
            height: int = 3
        class Between(Base):
            ignored: int = 0
        @dataclasses.dataclass
        class Thing(Between):
            parts: list[int] = field(default_factory=list)
            height: float = 2.0
        """,
    "a dataclass that writes its constructor itself": """
        from dataclasses import dataclass
        @dataclass
        class Thing:
            width: int
            def __init__(self, height: int): ...
        """,
    "names for type checkers only": """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from decimal import Decimal
        def Thing(count: int, price: Decimal): ...
        """,
}


@pytest.mark.parametrize("source", FOLLOWED.values(), ids=FOLLOWED.keys())
def test_followed(source: str, write_module: Write) -> None:
    target = f"{write_module(source)}.Thing"
    static, real = read_signature(target), imported_signature(target)
    assert static == real
    for name in real.named:
        assert verdicts(static, name) == verdicts(real, name), name


NOT_FOLLOWED = {
    "another name of what the first meant once": """
        def Other(old): ...
        Thing = Other
        def Other(new): ...
        """,
    "names that stand for each other": """
        try:
            Other = Thing
        except NameError:
            def Other(width): ...
        Thing = Other
        """,
    "a decorator that changes the signature": """
        def bare(function):
            def inner(other): ...
            return inner
        @bare
        def Thing(width): ...
        """,
    "a class decorator": """
        def bare(cls):
            return lambda other: None
        @bare
        class Thing:
            def __init__(self, width): ...
        """,
    "a field that is not of the constructor": """
        from dataclasses import dataclass, field
        @dataclass
        class Thing:
            width: int = field(init=False, default=3)
        """,
    "a metaclass": """
        class Meta(type):
            def __call__(cls, other): ...
        class Thing(metaclass=Meta):
            def __init__(self, width): ...
        """,
    "a base that gives its subclasses a constructor": """
        class Base:
            def __init_subclass__(cls):
                cls.__init__ = lambda self, other: None
        class Thing(Base):
            def __init__(self, width): ...
        """,
    "a constructor that is replaced": """
        class Thing:
            def __init__(self, width): ...
        Thing.__init__ = lambda self, other: None
        """,
    "an inherited __new__": """
        class Base:
            def __new__(cls, *args): return super().__new__(cls)
            def __init__(self, width): ...
        class Thing(Base): ...
        """,
    "either of two": """
        import sys
        if len(sys.argv) > 100:
            def Thing(width): ...
        else:
            def Thing(height): ...
        """,
    "made at run time": """
        def make():
            def inner(width): ...
            return inner
        Thing = make()
        """,
    "set by name": "globals()['Thing'] = lambda width: None",
    "loaded when asked for": """
        def __getattr__(name):
            return lambda width: None
        """,
    "rebound in a function": """
        def Thing(width): ...
        def change():
            global Thing
            Thing = lambda other: None
        change()
        """,
    "a compiled base": """
        import collections
        class Thing(collections.OrderedDict): ...
        """,
}


@pytest.mark.parametrize("source", NOT_FOLLOWED.values(), ids=NOT_FOLLOWED.keys())
def test_left_to_the_import(source: str, write_module: Write) -> None:
    target = f"{write_module(source)}.Thing"
    with pytest.raises(NotFollowedError):
        read_signature(target)
    if "OrderedDict" not in source:
        imported_signature(target)  # it is there
