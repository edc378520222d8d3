"""What a constructor takes, read from its source without importing it.

Importing all that an experiment names (PyTorch, Lightning, albumentations, smp) takes ten times as long as
reading the source files in which the constructors stand, and a typo should not wait for it. Documentation
tools that read source (griffe) load whole packages, 20 s for PyTorch alone, and do not say where Python would
see something else than they. Here whatever cannot be followed with certainty is left to the import.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skinseg.nearest import nearest

KNOWN_LIBRARIES = frozenset(
    {"skinseg", "segmentation_models_pytorch", "lightning", "albumentations", "torch"}
)
"""No other code gives their modules names; their `**kwargs` take no further setting that one would want."""


class TargetError(Exception):
    """A target is not there, or is nothing to call; the text says so."""


class NotFollowedError(Exception):
    """The source does not tell with certainty what an import would find."""


@dataclass(frozen=True)
class Signature:
    """What can be given to a constructor by name.

    Attributes:
        named: Its parameters.
        required: Those without a default.
        takes_any: It has `**kwargs`.
        types: Annotation by parameter, where it is known. Read from source, an empty class stands for
            whatever is not plain; pydantic does not check a type that holds one.
    """

    named: frozenset[str]
    required: frozenset[str]
    takes_any: bool
    types: Mapping[str, Any] = field(compare=False)


def read_signature(target: str) -> Signature:
    """Reads a target's signature from source files; nothing of it is imported.

    Args:
        target: Dotted path of a class or function, as in `_target_`.

    Returns:
        What `inspect.signature` would tell of it, except that a type may be missing.

    Raises:
        TargetError: It is certainly not there.
        NotFollowedError: Only an import can tell.
    """
    top, *rest = target.split(".")
    if not rest or not all(part.isidentifier() for part in (top, *rest)):
        raise NotFollowedError(target)
    if importlib.util.find_spec(top) is None:
        near = nearest(top, KNOWN_LIBRARIES)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TargetError(f"cannot be imported: there is no module {top}{hint}")
    try:
        return _read(target, top, rest)
    except RecursionError as error:  # names that stand for each other
        raise NotFollowedError(target) from error


def _read(target: str, top: str, rest: Sequence[str]) -> Signature:
    found = _Found(_load(top))
    for part in rest:
        if found.node is not None:
            raise NotFollowedError(f"{target}: an attribute of a class")
        try:
            found = _member(found.module, part)
        except _AbsentError as error:
            if top not in KNOWN_LIBRARIES or not error.certain:
                raise NotFollowedError(target) from error
            near = nearest(part, found.module.bindings)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TargetError(f"cannot be imported: no {part} in {found.module.name}{hint}") from error
    if isinstance(found.node, ast.ClassDef):
        return _of_class(found)
    if isinstance(found.node, ast.FunctionDef):
        return _of_function(found.module, found.node, bound=False)
    raise NotFollowedError(target)


# ---------------------------------------------------------------- modules and what their names stand for


class _AbsentError(Exception):
    """No statement of these modules binds a name."""

    def __init__(self, name: str, *modules: _Module) -> None:
        super().__init__(name)
        self.modules = modules

    @property
    def certain(self) -> bool:
        """Whether they bind names by statements alone."""
        return all(module.plain for module in self.modules)


@dataclass(frozen=True)
class _Binding:
    """What binds a name: a definition, an assigned expression, or an import.

    Attributes:
        node: The definition or the expression; None for an import.
        source: The module that is imported (from).
        name: What is imported from it; None: the module itself.
        line: Where.
        always: By a statement of the module itself, not under a condition.
        hidden: Under `if TYPE_CHECKING`, where only type checkers see it.
        unclear: Bound by a loop, `with`, `except` or taken away by `del`.
    """

    node: ast.AST | None = None
    source: str | None = None
    name: str | None = None
    line: int = 0
    always: bool = True
    hidden: bool = False
    unclear: bool = False


@dataclass(frozen=True)
class _Found:
    """A module (no node), or a node within it."""

    module: _Module
    node: ast.AST | None = None


class _Module:
    """The source of a module, parsed when a name is first looked for."""

    # Ways to bind names at run time.
    _DYNAMIC = re.compile(r"\bglobals\(\)|\bvars\(\)|\blocals\(\)|\bsetattr\(|\bexec\(|\bsys\.modules\b")

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        try:
            self.text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NotFollowedError(name) from error

    @functools.cached_property
    def _collected(self) -> tuple[dict[str, list[_Binding]], list[_Binding]]:
        try:
            tree = ast.parse(self.text)
        except (SyntaxError, ValueError) as error:
            raise NotFollowedError(self.name) from error
        bindings: dict[str, list[_Binding]] = {}
        stars: list[_Binding] = []
        for name, binding in _bindings(tree.body, self.package):
            if name == "*":
                stars.append(binding)
            else:
                bindings.setdefault(name, []).append(binding)
        return bindings, stars

    @property
    def bindings(self) -> dict[str, list[_Binding]]:
        return self._collected[0]

    @property
    def stars(self) -> list[_Binding]:
        """Each `from module import *`."""
        return self._collected[1]

    @functools.cached_property
    def plain(self) -> bool:
        """Whether all its names are bound by statements."""
        return "__getattr__" not in self.bindings and not self._DYNAMIC.search(self.text)

    def mentions(self, name: str) -> bool:
        """Whether it could bind a name at all: faster than parsing."""
        return name in self.text or "import *" in self.text


@functools.cache
def _load(name: str) -> _Module:
    """Finds a module's source without importing it or its parents.

    Raises:
        _AbsentError: There is no such module.
        NotFollowedError: It has no source: a compiled or a namespace package.
    """
    parent, _, last = name.rpartition(".")
    if not parent:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise _AbsentError(name)
        if spec.origin is None or not spec.origin.endswith(".py"):
            raise NotFollowedError(name)
        return _Module(name, Path(spec.origin))
    package = _load(parent)
    if package.path.name != "__init__.py":
        raise _AbsentError(name)
    folder = package.path.parent
    for path in (folder / last / "__init__.py", folder / f"{last}.py"):
        if path.is_file():
            return _Module(name, path)
    if (folder / last).is_dir() or any(folder.glob(f"{last}.*")) or "__path__" in package.text:
        raise NotFollowedError(name)
    raise _AbsentError(name)


def _bindings(body: Sequence[ast.stmt], package: str) -> Iterator[tuple[str, _Binding]]:
    """Yields what statements bind, not looking into functions and classes; "*" for a star import."""
    for node in body:
        yield from _bound(node, package, functools.partial(_Binding, line=node.lineno))


def _bound(node: ast.stmt, package: str, make: Callable[..., _Binding]) -> Iterator[tuple[str, _Binding]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        if not any(_last_name(decorator) == "overload" for decorator in node.decorator_list):
            yield node.name, make(node=node)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            yield name, make(source=alias.name if alias.asname else name)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            name = "*" if alias.name == "*" else alias.asname or alias.name
            yield name, make(source=_absolute(node, package), name=alias.name)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if not isinstance(target, ast.Name):
                yield from _unclear(target, make)
            elif node.value is not None:
                yield target.id, make(node=node.value)
    elif isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
        for statement in node.body:
            yield from _bound(statement, package, functools.partial(make, always=False, hidden=True))
        for statement in node.orelse:
            yield from _bound(statement, package, make)
    elif not isinstance(node, ast.Expr):
        make = functools.partial(make, always=False)
        for child in _children(node):
            if isinstance(child, ast.stmt):
                yield from _bound(child, package, make)
            elif isinstance(child, ast.expr):
                yield from _unclear(child, make)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the statements and expressions within a compound statement."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.expr):
            yield child
        else:  # handlers, cases, `with` items
            yield from _children(child)


def _unclear(expression: ast.expr, make: Callable[..., _Binding]) -> Iterator[tuple[str, _Binding]]:
    for node in ast.walk(expression):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, make(unclear=True)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - node.level + 1])
    return f"{base}.{node.module}" if node.module else base


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _member(module: _Module, name: str) -> _Found:
    """Finds what a module's attribute is; a package's submodules are attributes too.

    Raises:
        _AbsentError: It has no such attribute.
        NotFollowedError: Several statements bind it, or none that can be followed.
    """
    bound = [binding for binding in module.bindings.get(name, ()) if not binding.hidden]
    if not bound and "__getattr__" in module.bindings:
        # Packages that load lazily list what they load for type checkers.
        bound = module.bindings.get(name, [])
    # What was bound before a statement that is always run does not matter.
    since = max((binding.line for binding in bound if binding.always), default=0)
    bound = [binding for binding in bound if binding.line >= since]
    candidates = []
    for binding in bound:
        if binding.unclear or re.search(rf"(?m)^\s*global [\w, ]*\b{name}\b", module.text):
            raise NotFollowedError(f"{module.name}.{name}")
        candidates.append(_followed(module, binding))
    stars = list(_starred(module, since))
    for starred in stars:
        if starred.mentions(name) and _exports(starred, name):
            try:
                candidates.append(_member(starred, name))
            except _AbsentError as error:
                if not error.certain:
                    raise NotFollowedError(f"{starred.name}.{name}") from error
    try:
        submodule = _load(f"{module.name}.{name}")
    except _AbsentError:
        submodule = None
    if submodule is not None:
        if not candidates:
            return _Found(submodule)
        # `from .compose import compose` puts the function in the module's place; other orders are not known.
        if not all(b.source == submodule.name or (b.source, b.name) == (module.name, name) for b in bound):
            raise NotFollowedError(f"{module.name}.{name}: both a module and a name")
    if len({(found.module.name, id(found.node)) for found in candidates}) > 1:
        raise NotFollowedError(f"{module.name}.{name}: bound in several ways")
    if not candidates:
        raise _AbsentError(name, module, *stars)
    return candidates[0]


def _starred(module: _Module, since: int) -> Iterator[_Module]:
    """Yields the modules whose names are all taken over, after a line."""
    for star in module.stars:
        if star.line > since and not star.hidden and star.source is not None:
            try:
                yield _load(star.source)
            except _AbsentError:  # under `try`, or there is nothing to import at all
                continue


def _followed(module: _Module, binding: _Binding) -> _Found:
    """Follows imports and plain aliases to a definition, an expression or a module."""
    if binding.source is not None:
        source = _load_followed(binding.source)
        if binding.name is None:
            return _Found(source)
        if binding.source == module.name:  # `from . import name` within a package: the submodule
            return _Found(_load_followed(f"{binding.source}.{binding.name}"))
        try:
            return _member(source, binding.name)
        except (_AbsentError, RecursionError) as error:
            raise NotFollowedError(f"{binding.source}.{binding.name}") from error
    assert binding.node is not None
    if isinstance(binding.node, ast.Name | ast.Attribute):
        return _of_expression(module, binding.node)
    return _Found(module, binding.node)


def _load_followed(name: str) -> _Module:
    try:
        return _load(name)
    except _AbsentError as error:
        raise NotFollowedError(name) from error


def _exports(module: _Module, name: str) -> bool:
    """Whether `from module import *` binds a name that the module has."""
    listed = module.bindings.get("__all__")
    if listed is None:
        return not name.startswith("_")
    names: list[str] = []
    for binding in listed:
        try:
            names += ast.literal_eval(binding.node)  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            raise NotFollowedError(f"{module.name}.__all__") from error
    return name in names


def _of_expression(module: _Module, node: ast.AST) -> _Found:
    """Finds what `name` or `module.name` stands for."""
    try:
        if isinstance(node, ast.Name):
            if sum(not binding.hidden for binding in module.bindings.get(node.id, ())) > 1:
                raise NotFollowedError(f"{module.name}.{node.id}: may have meant something else there")
            return _member(module, node.id)
        if isinstance(node, ast.Attribute):
            owner = _of_expression(module, node.value)
            if owner.node is None:
                return _member(owner.module, node.attr)
    except _AbsentError as error:
        raise NotFollowedError(ast.unparse(node)) from error
    raise NotFollowedError(ast.unparse(node))


# ---------------------------------------------------------------------------------- classes and functions

# What a class may inherit from without a constructor of its own.
_BARE_BASES = frozenset({"object", "abc.ABC", "typing.Generic", "typing_extensions.Generic"})
# They do not change what a class takes. albumentations' wraps the constructor but keeps its signature.
_METACLASSES = frozenset({"abc.ABCMeta", "albumentations.core.transforms_interface.CombinedMeta"})
_SERIALIZABLE = "albumentations.core.serialization.SerializableMeta"
_WITHOUT_EFFECT = frozenset({"final", "runtime_checkable"})


@dataclass(frozen=True)
class _Class:
    """A class and what its body binds."""

    found: _Found
    members: dict[str, list[_Binding]]
    metaclass: str | None
    bases: tuple[_Class, ...]
    is_dataclass: bool = False

    @property
    def key(self) -> tuple[str, int]:
        return self.found.module.name, id(self.found.node)


def _of_class(found: _Found) -> Signature:
    """Reads the constructor that Python would take: the first of all bases that defines one."""
    order = _resolution_order(_class(found))
    metaclasses = {cls.metaclass for cls in order} - {None}
    # Of two that are inherited, Python 3.11 takes `__new__` and later releases the nearest.
    if "__new__" in order[0].members or (
        "__init__" not in order[0].members and any("__new__" in cls.members for cls in order)
    ):
        raise NotFollowedError(f"{found.module.name}: __new__")
    for cls in order:
        if "__init__" in cls.members:
            *_, last = cls.members["__init__"]
            if len(cls.members["__init__"]) > 1 or not isinstance(last.node, ast.FunctionDef):
                raise NotFollowedError(f"{cls.key[0]}: __init__ is not a single function")
            signature = _of_function(cls.found.module, last.node, bound=True)
            if any("albumentations" in str(name) for name in metaclasses) and "InitSchema" in cls.members:
                return Signature(signature.named, signature.required, signature.takes_any, types={})
            return signature
        if cls.is_dataclass:
            return _of_fields([base for base in order[order.index(cls) :] if base.is_dataclass])
    return Signature(frozenset(), frozenset(), takes_any=False, types={})


def _of_fields(order: Sequence[_Class]) -> Signature:
    """Reads the constructor of a dataclass: the fields of all its bases, the nearest one's first."""
    required: dict[str, bool] = {}
    types: dict[str, Any] = {}
    for cls in reversed(order):
        module, node = cls.found.module, cls.found.node
        assert isinstance(node, ast.ClassDef)
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        annotations = {}
        for part in fields:
            kind = _last_name(
                part.annotation.value if isinstance(part.annotation, ast.Subscript) else part.annotation
            )
            if not isinstance(part.target, ast.Name) or kind in ("InitVar", "KW_ONLY"):
                raise NotFollowedError(f"{module.name}.{node.name}: a field of another kind")
            if kind != "ClassVar":
                required[part.target.id] = _is_required(part.value)
                annotations[part.target.id] = part.annotation
        types |= dict(_types(module, annotations, None))
    return Signature(
        named=frozenset(required),
        required=frozenset(name for name, needed in required.items() if needed),
        takes_any=False,
        types=types,
    )


def _is_required(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call) and _last_name(value.func) == "field":
        keywords = {keyword.arg for keyword in value.keywords}
        if "init" in keywords or None in keywords:
            raise NotFollowedError("a field that may not be of the constructor")
        return not keywords & {"default", "default_factory"}
    return value is None


def _is_dataclass(module: _Module, node: ast.ClassDef) -> bool:
    """Whether the only decorator is `dataclass`, which writes the constructor from the fields."""
    if len(node.decorator_list) != 1:
        return False
    (decorator,) = node.decorator_list
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    keywords = {k.arg for k in decorator.keywords} if isinstance(decorator, ast.Call) else set()
    return _standard_library(module, call) == "dataclasses.dataclass" and keywords <= {
        "frozen",
        "eq",
        "order",
    }


def _class(found: _Found) -> _Class:
    node = found.node
    if not isinstance(node, ast.ClassDef):
        raise NotFollowedError(f"{found.module.name}: a base that is no class statement")
    module = found.module
    is_dataclass = _is_dataclass(module, node)
    other = [d for d in node.decorator_list if _last_name(d) not in _WITHOUT_EFFECT]
    if other and not is_dataclass:
        raise NotFollowedError(f"{module.name}.{node.name}: decorated")
    if re.search(rf"\b{node.name}\.(__init__|__new__|__signature__)\s*=[^=]", module.text):
        raise NotFollowedError(f"{module.name}.{node.name}: its constructor is replaced")
    members: dict[str, list[_Binding]] = {}
    for name, binding in _bindings(node.body, module.package):
        if not binding.hidden:
            members.setdefault(name, []).append(binding)
    if "__signature__" in members or any(map(_replaces_constructor, members.get("__init_subclass__", ()))):
        raise NotFollowedError(f"{module.name}.{node.name}: makes signatures itself")
    metaclass = None
    for keyword in node.keywords:
        if keyword.arg is None:
            raise NotFollowedError(f"{module.name}.{node.name}: keywords")
        if keyword.arg == "metaclass":
            metaclass = _qualified(module, keyword.value)
            if metaclass not in _METACLASSES | {_SERIALIZABLE}:
                raise NotFollowedError(f"{module.name}.{node.name}: metaclass {metaclass}")
    bases = []
    for expression in node.bases:
        base = expression.value if isinstance(expression, ast.Subscript) else expression
        if _qualified(module, base) not in _BARE_BASES:
            bases.append(_class(_of_expression(module, base)))
    return _Class(found, members, metaclass, tuple(bases), is_dataclass)


def _replaces_constructor(binding: _Binding) -> bool:
    """Whether a hook that sees each subclass may give it another constructor."""
    if binding.node is None:
        return True
    for node in ast.walk(binding.node):
        if isinstance(node, ast.Call) and _last_name(node.func) in ("setattr", "exec"):
            return True
        replaced = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        if replaced and _last_name(node) in ("__init__", "__new__", "__signature__"):
            return True
    return False


def _qualified(module: _Module, node: ast.expr) -> str | None:
    """Returns the dotted path of a class or of a name of the standard library, None for anything else."""
    if isinstance(node, ast.Name) and node.id == "object" and "object" not in module.bindings:
        return "object"
    outside = _standard_library(module, node)
    if outside is not None:
        return outside
    found = _of_expression(module, node)
    return f"{found.module.name}.{found.node.name}" if isinstance(found.node, ast.ClassDef) else None


def _standard_library(module: _Module, node: ast.AST) -> str | None:
    """Returns the dotted path of a name that is imported from the standard library."""
    if isinstance(node, ast.Name):
        bound = module.bindings.get(node.id, [])
        source = bound[0].source if len(bound) == 1 and not bound[0].hidden else None
        if source and (source.split(".")[0] in sys.stdlib_module_names or source == "typing_extensions"):
            return f"{source}.{bound[0].name}" if bound[0].name else source
    elif isinstance(node, ast.Attribute):
        owner = _standard_library(module, node.value)
        return f"{owner}.{node.attr}" if owner else None
    return None


def _resolution_order(cls: _Class) -> list[_Class]:
    """Python's method resolution order (C3 linearization), without `object`."""
    lists = [*(_resolution_order(base) for base in cls.bases), list(cls.bases)]
    order = [cls]
    while lists := [members for members in lists if members]:
        for members in lists:
            head = members[0]
            if not any(head.key == other.key for others in lists for other in others[1:]):
                break
        else:
            raise NotFollowedError(f"{cls.key[0]}: bases in no order")
        order.append(head)
        lists = [[other for other in members if other.key != head.key] for members in lists]
    return order


def _of_function(module: _Module, node: ast.FunctionDef, *, bound: bool) -> Signature:
    """Reads a signature; `bound` leaves out the first parameter."""
    for decorator in node.decorator_list:
        if not _keeps_signature(_of_expression(module, decorator)):
            raise NotFollowedError(f"{module.name}.{node.name}: decorated")
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    both = list(zip(positional, defaults, strict=True))
    only_positional = {argument.arg for argument in arguments.posonlyargs}
    if bound:
        if not both:
            raise NotFollowedError(f"{module.name}.{node.name}: no self")
        both = both[1:]
    both += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    named = {argument.arg: default for argument, default in both if argument.arg not in only_positional}
    every = [*positional, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    annotations = {a.arg: a.annotation for a in every if a is not None and a.annotation is not None}
    return Signature(
        named=frozenset(named),
        required=frozenset(name for name, default in named.items() if default is None),
        takes_any=arguments.kwarg is not None,
        types=_types(module, annotations, node.returns),
    )


def _keeps_signature(found: _Found) -> bool:
    """Whether a decorator is a function that returns an inner one marked with `functools.wraps`.

    `inspect.signature` looks through those.
    """
    node = found.node
    if (
        not isinstance(node, ast.FunctionDef)
        or len(node.args.args) != 1
        or "__signature__" in found.module.text
    ):
        return False
    wrapped = node.args.args[0].arg
    inner = [child for child in node.body if isinstance(child, ast.FunctionDef)]
    others = [child for child in node.body if not isinstance(child, ast.FunctionDef | ast.Return)]
    returns = [child for child in node.body if isinstance(child, ast.Return)]
    if len(inner) != 1 or len(returns) != 1 or any(not _is_text(child) for child in others):
        return False
    returned = returns[0].value
    if isinstance(returned, ast.Call) and _last_name(returned.func) == "cast" and len(returned.args) == 2:
        returned = returned.args[1]
    marks = inner[0].decorator_list
    return (
        isinstance(returned, ast.Name)
        and returned.id == inner[0].name
        and len(marks) == 1
        and isinstance(mark := marks[0], ast.Call)
        and _standard_library(found.module, mark.func) == "functools.wraps"
        and len(mark.args) == 1
        and not mark.keywords
        and _last_name(mark.args[0]) == wrapped
    )


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


# ------------------------------------------------------------------------------------------- annotations


class _Types(Mapping[str, Any]):
    """The types of a function's parameters, made when they are asked for."""

    def __init__(self, module: _Module, annotations: Mapping[str, ast.expr]) -> None:
        self._module = module
        self._annotations = annotations

    def __getitem__(self, name: str) -> Any:
        return _type(self._module, self._annotations[name])

    def __contains__(self, name: object) -> bool:
        return name in self._annotations

    def __iter__(self) -> Iterator[str]:
        return iter(self._annotations)

    def __len__(self) -> int:
        return len(self._annotations)


def _types(module: _Module, annotations: Mapping[str, ast.expr], returns: ast.expr | None) -> _Types:
    """Returns the types that annotations stand for.

    As `typing.get_type_hints` does, it knows none of them if one names what only type checkers see.
    """
    for annotation in (*annotations.values(), returns):
        if annotation is not None and any(
            _only_for_type_checkers(module, name) for name in _names(annotation)
        ):
            return _Types(module, {})
    return _Types(module, annotations)


def _names(annotation: ast.expr) -> Iterator[str]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Another annotation; or a value of a Literal, which hardly is a name of the module as well.
            yield from re.findall(r"[A-Za-z_]\w*", node.value)


def _only_for_type_checkers(module: _Module, name: str) -> bool:
    bound = module.bindings.get(name, [])
    return bool(bound) and all(binding.hidden for binding in bound)


def _type(module: _Module, node: ast.expr) -> Any:
    """Makes the type of an annotation; an empty class stands for whatever is not plain."""
    try:
        made = _evaluated(module, node)
    except (NotFollowedError, TypeError, AttributeError, SyntaxError, ImportError, RecursionError):
        return _empty_class()
    return made


def _empty_class() -> type:
    # pydantic makes no check of a type that holds a class it does not know.
    return type("Unknown", (), {})


def _evaluated(module: _Module, node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _evaluated(module, ast.parse(node.value, mode="eval").body)
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[_evaluated(module, node.left), _evaluated(module, node.right)]  # noqa: UP007
    if isinstance(node, ast.List | ast.Tuple):
        made = [_evaluated(module, element) for element in node.elts]
        return made if isinstance(node, ast.List) else tuple(made)
    if isinstance(node, ast.Subscript):
        generic = _evaluated(module, node.value)
        if generic in (typing.Literal, getattr(typing, "Annotated", None)):
            if generic is not typing.Literal:
                raise NotFollowedError("Annotated")
            try:
                return generic[ast.literal_eval(node.slice)]
            except ValueError as error:
                raise NotFollowedError(ast.unparse(node)) from error
        arguments = _evaluated(module, node.slice)
        return _empty_class() if getattr(generic, "__name__", "") == "Unknown" else generic[arguments]
    if isinstance(node, ast.Name | ast.Attribute):
        return _named_type(module, node)
    raise NotFollowedError(ast.unparse(node))


def _named_type(module: _Module, node: ast.Name | ast.Attribute) -> Any:
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(root, ast.Name):
        bound = module.bindings.get(root.id, [])
        builtin = getattr(importlib.import_module("builtins"), root.id, None)
        if not bound and not module.stars and builtin is not None and root is node:
            return builtin
    outside = _standard_library(module, node)
    if outside is not None:
        owner, _, name = outside.rpartition(".")
        return getattr(importlib.import_module(owner), name)
    found = _of_expression(module, node)
    if isinstance(found.node, ast.expr):
        return _evaluated(found.module, found.node)
    return _empty_class()
