"""Every hint that is printed can be pasted into a shell, whatever the path in it is."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, TINY, WriteHam
from hydra.core.override_parser.overrides_parser import OverridesParser

from skinseg.config.compose import compose, config_dir, plain
from skinseg.errors import SkinsegError
from skinseg.quoting import command_line, override, pasted

PATHS = (
    "/runs/best.ckpt",
    "outputs/2026-11-28/12-00-00/best.ckpt",
    "/my runs/best.ckpt",
    "/a,b=c/best.ckpt",
    '/it\'s "mine"/best.ckpt',
    "/$HOME/${seed}/best.ckpt",
    "/(a) [b] {c}/best.ckpt",
    "/Läsion/病変.ckpt",
    "/a\\b/'",
    "/ends in a backslash\\",
    "~/a;b&c|d*?!#<e>`f`.ckpt",
    "two\nlines",
    "null",
    "",
)
NASTY = "a b, c=d 'e' \"f\" $HOME (g) [h] ü"
SHELL = shutil.which("bash") or "sh"
# As where the environment is active, in which `python` is its own.
ACTIVE = {
    **os.environ,
    "PYTHONPATH": str(REPOSITORY),
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}


def given(line: str, command: str) -> dict[str, Any]:
    """Returns the configuration that a command gets from a pasted line of words."""
    return plain(compose([*shlex.split(line), "run_dir=."], command))


@pytest.mark.parametrize("path", PATHS)
def test_a_pasted_word_is_what_it_was(path: str) -> None:
    line = pasted(override("runs", path), override("tags", [path, path]))
    said = subprocess.run(
        [SHELL, "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    ).stdout
    assert said.split("\0")[:-1] == shlex.split(line), "the shell reads it as shlex does"
    config = given(line, "compare")
    assert (config["runs"], config["tags"]) == (path, [path, path])


@pytest.mark.parametrize("value", [1, 1e-5, True, None, [224, 320], ["a b", "c"], {"a": 1}])
def test_values_that_are_no_text(value: object) -> None:
    (word,) = shlex.split(pasted(override("key", value)))
    assert OverridesParser.create().parse_override(word).value() == value


def test_an_ordinary_path_is_not_quoted() -> None:
    line = command_line("skinseg.evaluate", override("ckpt", Path("/runs/2026-11-28/best.ckpt")))
    assert line == "python -m skinseg.evaluate ckpt=/runs/2026-11-28/best.ckpt"


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the strings that are filled in, with a NUL for each value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value.replace("%s", "\0")


BY_HAND = re.compile(
    r"(python|wandb) (-m|sync)[^\n]*\0"
    # A key of a path that is advised; a message begins with one that is refused.
    r"|(?<=.)(?<![\w.])(ckpt|ckpt_path|init_from|runs|input|output|hydra\.run\.dir|[a-z_.]+\.(root|file|masks|image_size))=\[?\0"
    r"(?! has trained)"
)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "skinseg").rglob("*.py")), ids=lambda path: str(path.relative_to(REPOSITORY))
)
def test_no_hint_is_composed_by_hand(path: Path) -> None:
    assert [(line, text) for line, text in strings(path) if BY_HAND.search(text)] == []


def test_commands_in_texts_are_read_by_a_shell_and_by_hydra() -> None:
    files = [*(REPOSITORY / "skinseg").glob("*.py"), *config_dir().rglob("*.yaml")]
    lines = [line.removeprefix("#").strip() for path in files for line in path.read_text().splitlines()]
    # Without that which explains the words of a job: its brackets are none of a command.
    found = [line for line in lines if line.startswith("python -m skinseg.") and "skinseg.job" not in line]
    assert len(found) > 10
    for line in found:
        _, _, module, *words = shlex.split(re.sub(r"<[^<>]*>", "x", line.rstrip("\\")))
        assert (REPOSITORY / f"{module.replace('.', '/')}.py").is_file()
        OverridesParser.create().parse_overrides(words)


def hint(text: str, after: str) -> str:
    """Returns what is to be pasted of a message."""
    return text.partition(after)[2].splitlines()[0].strip().removesuffix("?")


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    folder = tmp_path / NASTY
    folder.mkdir()
    return folder


def test_a_folder_in_place_of_its_checkpoint(nasty: Path) -> None:
    from skinseg.run.checkpoint import read_checkpoint

    best = nasty / "checkpoints/best.ckpt"
    best.parent.mkdir()
    best.touch()
    with pytest.raises(SkinsegError) as refused:
        read_checkpoint(nasty, key="ckpt")
    assert given(hint(str(refused.value), "did you mean "), "evaluate")["ckpt"] == str(best)


def test_how_to_resume(nasty: Path) -> None:
    from skinseg.recipes.train import _results_so_far
    from skinseg.training.failure import how_to_resume

    last = nasty / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.touch()
    with pytest.raises(SkinsegError) as refused:
        _results_so_far(nasty, None)
    for line in (
        hint(how_to_resume(nasty), "the same command: "),
        hint(str(refused.value), "to go on with it: "),
    ):
        assert given(line, "train")["ckpt_path"] == str(last)


def test_how_to_take_the_split_of_a_run(nasty: Path) -> None:
    from skinseg.run.resuming import _split_of

    assert _split_of("last.ckpt") == "data.split.file=<run folder>/split.csv"
    (nasty / "split.csv").touch()
    (word,) = shlex.split(_split_of(str(nasty / "checkpoints" / "last.ckpt")))
    assert given(pasted(word), "train")["data"]["split"]["file"] == str(nasty / "split.csv")


def test_how_to_evaluate_a_run(nasty: Path) -> None:
    from skinseg.evaluation.runs import find_runs

    best = nasty / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    best.touch()
    with pytest.raises(SkinsegError) as refused:
        find_runs([str(nasty)])
    line = hint(str(refused.value), "Evaluate it first: ")
    # Run as it was printed, with Hydra's option that shows what it has read.
    done = subprocess.run(
        [SHELL, "-c", f"{line} --cfg job"], capture_output=True, text=True, check=False, cwd=nasty,
        env=ACTIVE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["ckpt"] == str(best)


def test_how_to_sync(nasty: Path) -> None:
    from skinseg.tracking.logger import how_to_sync

    line = how_to_sync(Path(os.path.relpath(nasty)))
    assert shlex.split(line)[-1] == str(nasty.resolve())
    done = subprocess.run(
        [SHELL, "-c", line.replace(" sync ", " sync --help ")], capture_output=True, text=True, check=False,
        cwd="/", env={key: value for key, value in os.environ.items() if key != "PATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wandb sync" in done.stdout


@pytest.mark.slow
def test_the_hint_of_a_training_that_could_not_score_is_executed(nasty: Path, write_ham: WriteHam) -> None:
    from skinseg.train import run

    places = [override("data.root", write_ham(20, root=nasty / "data")), override("run_dir", nasty / "run")]
    broken = "+callbacks.broken={_target_: test_train.Broken, hook: on_test_start}"
    with pytest.raises(SkinsegError) as failed:
        run(compose([*TINY, "logger=none", broken, *places]))
    line = hint(str(failed.value), "To score its checkpoint: ")
    done = subprocess.run(
        [SHELL, "-c", line], capture_output=True, text=True, check=False, cwd=nasty,
        env=ACTIVE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(nasty.rglob("evaluation.json"))
