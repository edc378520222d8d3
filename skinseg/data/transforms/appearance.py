"""What our transforms of albumentations have in common: they change the image alone, from one seed.

They go into any chain of albumentations. They take and give uint8 images of shape (height, width, 3), RGB, of
any size, and leave the mask as it is: the lesion is still there below. All random numbers of a call come from
one seed, which is drawn from the transform's own generator.
"""

from __future__ import annotations

import inspect
import typing
from abc import ABC, abstractmethod
from typing import Annotated, Any

import albumentations as A
import numpy as np
from albumentations.core.pydantic import check_range_bounds, nondecreasing
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import AfterValidator, create_model

from skinseg.data.transforms.drawing import Picture

Pair = Annotated[tuple[float, float], AfterValidator(nondecreasing)]
Shares = Annotated[Pair, AfterValidator(check_range_bounds(0, 1))]
Counts = Annotated[
    tuple[int, int], AfterValidator(nondecreasing), AfterValidator(check_range_bounds(1, 1000))
]


class _Declared(type(A.ImageOnlyTransform)):  # type: ignore[misc]
    """Makes the constructor, and the check of its arguments, of the fields that a class declares."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        own = namespace.get("__annotations__", {})
        if own and "__init__" not in namespace:
            holder = type(name, (), {"__annotations__": own, "__module__": namespace["__module__"]})
            kinds = typing.get_type_hints(holder, include_extras=True)
            fields: dict[str, Any] = {field: (kind, ...) for field, kind in kinds.items()}
            namespace["InitSchema"] = create_model(name, __base__=BaseTransformInitSchema, **fields)
            namespace["__init__"] = _constructor({field: namespace[field] for field in own})
        return super().__new__(cls, name, bases, namespace)


def _constructor(defaults: dict[str, Any]) -> Any:
    def construct(self: Any, **arguments: Any) -> None:
        A.ImageOnlyTransform.__init__(self, p=arguments.pop("p"))
        vars(self).update(arguments)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named = [inspect.Parameter(name, kind, default=value) for name, value in {**defaults, "p": 0.5}.items()]
    construct.__signature__ = inspect.Signature([inspect.Parameter("self", kind), *named])  # type: ignore[attr-defined]
    return construct


class Appearance(A.ImageOnlyTransform, ABC, metaclass=_Declared):  # type: ignore[misc]
    """A change of the image alone, all of whose random numbers come from one drawn seed.

    Annotated fields of a subclass are its arguments, with their defaults and what they may be.

    Args:
        p: Probability that an image is changed.
    """

    def get_params(self) -> dict[str, Any]:
        """Returns the seed of this call, which a replay repeats."""
        return {"seed": int(self.random_generator.integers(2**63))}

    def apply(self, img: Picture, *, seed: int, **_: Any) -> Picture:
        """Returns the changed image.

        Args:
            img: uint8 array of shape (height, width, 3), RGB.
            seed: What `get_params` drew.

        Raises:
            ValueError: It is another kind of array.
        """
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(
                f"{type(self).__name__}: found an image of {img.dtype} and shape {img.shape}, expected uint8 "
                "and (height, width, 3)."
            )
        return self.draw(img, np.random.default_rng(seed))

    @abstractmethod
    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns a changed copy of a uint8 RGB image (height, width, 3)."""
