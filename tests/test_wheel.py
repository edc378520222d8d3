"""The installed wheel, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_the_wheel_runs_the_demo_in_an_empty_folder(tmp_path: Path) -> None:
    def call(*command: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    call(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), cwd=REPOSITORY)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    call(sys.executable, "-m", "venv", "venv")
    python = str(tmp_path / "venv/bin/python")
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel))
    # The dependencies of this environment, but not its editable install of skinseg: a path that a .pth file
    # names is searched for packages, while .pth files in it are not read.
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    empty = tmp_path / "empty"
    empty.mkdir()
    done = call(
        python,
        "-m",
        "skinseg.train",
        "+experiment=demo",
        "trainer.max_epochs=1",
        "data.reader.lesions=30",
        cwd=empty,
    )
    assert "Scores of demo" in done.stdout
    where = call(python, "-c", "import skinseg.config.compose as c; print(c.config_dir())", cwd=empty).stdout
    assert str(site) in where
