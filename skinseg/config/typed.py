"""Values of a configuration as the annotations of a schema or a constructor take them."""

from __future__ import annotations

import json
import typing
from typing import Any

_NUMBERS = frozenset({bool, int, float})


class ValueTypeError(Exception):
    """A value is not of the type that is expected; the text says which one is."""


def typed(value: Any, annotation: Any) -> Any:
    """Returns a value as its annotation takes it, checked.

    What comes from the environment (`${oc.env:SEED}`) is text, and a whole number may have been written as
    1e1. Where a number, a truth value or a list of them is expected and no text, the text becomes one.

    Args:
        value: Plain.
        annotation: Of a field or a parameter. One that only its own library can check is not held against a
            value, but a text may still become a number by it.

    Returns:
        The value, with numbers, truth values and lists for what stands for them, and otherwise as it was.

    Raises:
        ValueTypeError: It is not of that type.
    """
    import pydantic
    import pydantic_core

    undefined = pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation
    whole = True
    options = pydantic.ConfigDict(coerce_numbers_to_str=True)  # name=3 is a name
    try:
        adapter = pydantic.TypeAdapter(annotation, config=options)
    except undefined:
        whole = False
        try:
            adapter = pydantic.TypeAdapter(annotation, config={**options, "arbitrary_types_allowed": True})
        except (*undefined, pydantic_core.SchemaError):
            return value
    try:
        return _read(value, adapter.validate_python(value))
    except pydantic.ValidationError as error:
        if whole and isinstance(value, str) and (listed := _as_list(value)) is not None:
            return typed(listed, annotation)
        if whole and not isinstance(value, dict):  # of which parts may be filled in where it is used
            if annotation == tuple[int, int]:
                raise ValueTypeError("expected two whole numbers, such as [192,256]") from error
            expected = dict.fromkeys(detail["msg"] for detail in error.errors()[:3])
            raise ValueTypeError("; ".join(expected)) from error
        if isinstance(value, str) and _takes_no_text(annotation):
            raise ValueTypeError("Input should be a number") from error
        return value
    except ValueTypeError:
        raise
    except Exception:  # a validator of another library's type
        return value


def _as_list(text: str) -> list[Any] | None:
    """Reads a list of numbers or truth values, such as "[192, 256]"; None where the text is none."""
    try:
        listed = json.loads(text)
    except ValueError:
        return None
    return listed if isinstance(listed, list) else None


def _takes_no_text(annotation: Any) -> bool:
    """Whether it is a union of numbers and classes, such as that of a learning rate and a tensor."""
    options = typing.get_args(annotation)
    known = all(isinstance(option, type) and option.__name__ != "Unknown" for option in options)
    return known and bool(_NUMBERS & set(options)) and not any(issubclass(str, option) for option in options)


def _read(value: Any, taken: Any) -> Any:
    """Returns a value with what pydantic took it for, where that is a number of another kind."""
    if isinstance(value, dict) and isinstance(taken, dict):
        return {key: _read(child, taken.get(key, child)) for key, child in value.items()}
    if isinstance(value, list) and isinstance(taken, list | tuple) and len(value) == len(taken):
        return [_read(*pair) for pair in zip(value, taken, strict=True)]
    kind, wanted = type(value), type(taken)
    if wanted is str and kind is float:  # of 1e3 nothing is left but 1000.0
        raise ValueTypeError("expected text; in two pairs of quotes a number stays what it is: \"'1e3'\"")
    if wanted is str and kind is int:
        return taken
    if wanted not in _NUMBERS or kind not in {*_NUMBERS, str} or (kind, wanted) == (int, float):
        return value
    # pydantic takes "no" for False and true for 1, which hardly anybody means.
    if wanted is bool and kind is str and value.lower() not in ("true", "false"):
        raise ValueTypeError("Input should be true or false")
    if kind is bool and wanted is not bool:
        raise ValueTypeError("Input should be a number")
    return taken
