"""What a wheel holds, and that building one from a tree with built bundles needs no Node."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    # An empty PATH has neither npm nor node.
    done = subprocess.run(command, cwd=ROOT, env={"PATH": str(out)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_a_wheel_holds_both_packages_and_both_bundles(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"tinyviz/__init__.py", "tinyviz/widget.py", "tinyviz/static/widget.js", "tinyengine/__init__.py"} <= names
    data = "tinyviz_lab-0.1.0.data/data/share/jupyter/labextensions/tinyviz-lab/"
    installed = {name.removeprefix(data) for name in names if name.startswith(data)}
    assert {"package.json", "install.json"} <= installed
    entry = json.loads(wheel.read(data + "package.json"))["jupyterlab"]["_build"]["load"]
    assert entry in installed


def test_a_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"tinyviz", "tinyengine", "tinyviz_lab-0.1.0.dist-info", "tinyviz_lab-0.1.0.data"}
    assert not [name for name in wheel.namelist() if name.startswith("tinyviz/labextension") or "__pycache__" in name]


def test_a_wheel_needs_no_more_than_it_says(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read("tinyviz_lab-0.1.0.dist-info/METADATA").decode()
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    names = {line.removeprefix("Requires-Dist: ").split(">")[0].split("=")[0].strip() for line in needed}
    assert names == {"numpy", "llvmlite", "pyopencl", "ipywidgets", "anywidget", "graphviz"}


def test_the_lock_names_no_download_address() -> None:
    lock = json.loads((ROOT / "extension" / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
