"""Who may import whom: the direction that the packages keep."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "skinseg"
COMMANDS = (
    "train", "evaluate", "predict", "compare", "audit", "split", "preview", "download", "job", "multirun",
    "dashboard", "ensemble", "command",
)  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room(path: Path) -> str:
    """The folder below skinseg/, or the module's own name at the top."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_direction(path: Path) -> None:
    here = room(path)
    roots = {name.split(".")[0] for name in imports(path)}
    own = {name.split(".")[1] for name in imports(path) if name.startswith("skinseg.")}
    if here not in ("config", "sweep", "train", "job") and path.name != "nodes.py":
        assert not roots & {"hydra", "omegaconf"}, "only config and sweep see more than plain values"
    if here in ("data", "scoring", "models"):
        assert not own & {
            "inference",
            "evaluation",
            "report",
            "callbacks",
            "build",
            "config",
            "summary",
            "tracking",
            "recipes",
            "sweep",
            "pictures",
            *COMMANDS,
        }
    if here == "scoring":
        assert not roots & {"torch", "lightning", "torchmetrics"}, "scores are usable without torch"
    if here != "tracking" and path.name != "wandb_run.py":
        assert not roots & {"wandb", "wandb_workspaces"}, "only tracking and its callbacks know W&B"
    if here in ("callbacks", "inference", "evaluation", "report", "tracking"):
        assert not own & {"build", "config", "recipes", *COMMANDS}


def test_no_circles() -> None:
    """Nor among what only type checkers or functions import, however late."""
    names = {
        ".".join(("skinseg", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES
    }
    imported: dict[str, set[str]] = {}
    for name, path in names.items():
        found = set(imports(path))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:  # from skinseg.report import wording
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        imported[name] = found & names.keys()
    try:
        graphlib.TopologicalSorter(imported).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_hydras_insides_in_one_module() -> None:
    """What its next version may have otherwise."""
    for path in MODULES:
        text = path.read_text()
        inside = "hydra._internal" in text or "GlobalHydra" in text or "HydraConfig.instance" in text
        assert inside == (path == PACKAGE / "config/internals.py"), path


@pytest.mark.parametrize("path", sorted((PACKAGE / "recipes").glob("*.py")), ids=lambda path: path.stem)
def test_recipes_import_at_the_top(path: Path) -> None:
    """But for an extra that is not always there."""
    for function in (
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    ):
        late = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert {ast.unparse(node) for node in late} <= {"import kagglehub"}, function.name


def test_no_room_for_odds_and_ends() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "misc", "common"}


def test_what_programs_beside_the_package_import_is_there() -> None:
    """Nobody runs all of them after a move."""
    paths = [
        path
        for folder in ("docs", "benchmarks", "experiments")
        for path in (REPOSITORY / folder).rglob("*.py")
    ]
    assert len(paths) > 5
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("skinseg"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    where = f"{node.module}.{alias.name}"
                    assert hasattr(module, alias.name) or importlib.util.find_spec(where), f"{path}: {where}"
