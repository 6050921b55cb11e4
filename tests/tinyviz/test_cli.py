"""The command line, the exported page and DOT."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinyviz import cli, doctor, dot, export, views
from tinyviz.recording import Recording

BUILT = (Path(export.__file__).parent / "static" / "widget.js").is_file()
needs_bundle = pytest.mark.skipif(not BUILT, reason="the widget's bundle is not built: make bundles")


@pytest.fixture
def saved(recording: Recording, tmp_path: Path) -> str:
    return str(recording.save(tmp_path / "a.tvz"))


@pytest.mark.parametrize("name", views.NAMES)
def test_show_prints_a_view(name: str, saved: str, recording: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", saved, "--view", name]) == 0
    assert capsys.readouterr().out.rstrip("\n") == recording.view(name).text.rstrip("\n")


def test_show_prints_json(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", saved, "--view", "fusion", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["view"] == "fusion"


def test_show_writes_files(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", saved, "--svg", str(tmp_path / "a.svg"), "--dot", str(tmp_path / "a.dot")]) == 0
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert (tmp_path / "a.dot").read_text().startswith("digraph")
    assert "wrote" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["none.tvz"], "none.tvz: No such file"),
        (["{saved}", "--program", "9"], "there is no program 9: the recording has 1, counted from 0"),
        (["{saved}", "--select", "kernel:0.999"], "this recording has no kernel '0.999'"),
        (["{saved}", "--table", "kernels", "--html", "a.html"], "--table prints rows and nothing else: leave out --html"),
        (["{other}"], "other.tvz is no recording, or is damaged: File is not a zip file"),
    ],
)
def test_what_goes_wrong_is_said(
    args: list[str], says: str, saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.tvz"
    other.write_text("hello")
    assert cli.main(["show", *(a.format(saved=saved, other=other) for a in args)]) == 1
    out = capsys.readouterr()
    assert says in out.err and out.err.startswith("tinyviz show: ") and "Traceback" not in out.err


def test_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        cli.main(["show", "a.tvz", "--view", "nonsense"])
    assert e.value.code == 2 and "invalid choice" in capsys.readouterr().err


def test_the_package_is_the_command_too() -> None:
    out = subprocess.run([sys.executable, "-m", "tinyviz", "--help"], capture_output=True, text=True, check=True).stdout
    assert out.startswith("usage: tinyviz") and "doctor" in out


def test_doctor_says_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("python", "numpy", "backend llvm", "backend reference", "processor", "peaks", "kernel cache", "graphviz dot"):
        assert re.search(rf"^(ok|--)  {word} ", out, re.MULTILINE), word


def test_doctor_finds_what_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tinyengine import backends

    real = backends.get

    def get(name: str | None = None) -> object:
        if name in ("llvm", None):
            raise backends.BackendError("backend 'llvm' cannot be used here: no such luck")
        return real(name)

    monkeypatch.setattr(backends, "get", get)
    monkeypatch.setattr(backends, "current", lambda: "llvm")
    monkeypatch.setattr(doctor, "machine", lambda: 1 / 0)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "--  backend llvm         no such luck" in out
    assert "!!  backends             the default backend llvm cannot be used" in out
    assert "could not be examined: ZeroDivisionError" in out


def test_cache_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path / "cache"))
    assert cli.main(["cache", "clear"]) == 0
    assert "freed 0 B in" in capsys.readouterr().out
    monkeypatch.setenv("TINYENGINE_CACHE", "0")
    assert cli.main(["cache", "clear"]) == 0
    assert "switched off" in capsys.readouterr().out


@needs_bundle
def test_the_demo_learns_and_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "demo.html"
    assert cli.main(["demo", "--html", str(page)]) == 0
    out = capsys.readouterr()
    accuracy = re.search(r"test accuracy ([\d.]+)%", out.out)
    assert accuracy and float(accuracy[1]) >= 97
    assert "prediction ledger" in out.out and "time of one run" in out.out and "kernels of one step" in out.out
    assert "60/60" in out.err
    assert page.stat().st_size > 50_000


@needs_bundle
def test_a_page_is_self_contained_and_holds_the_recording(recording: Recording, tmp_path: Path) -> None:
    recording.data.title = "</title><script>alert(1)</script>"
    text = recording.html(tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text
    outside = re.sub(r'<script type="text/plain" id="(module|data)">.*?</script>', "", text, flags=re.DOTALL)
    assert not re.search(r"https?://", outside)
    data = re.search(r'id="data">([^<]*)<', text)
    assert data is not None
    bundle = json.loads(gzip.decompress(base64.b64decode(data[1])))
    assert bundle["view"] == "explorer" and bundle["recording"] == recording.data.id
    shown = {name for name, data in bundle["data"]["views"].items() if data is not None}
    assert shown == set(views.NAMES) == set(bundle["data"]["texts"])


def test_dot_names_every_node_and_edge(recording: Recording) -> None:
    p = recording.data.programs[0]
    text = recording.dot()
    nodes = re.findall(r"^\s*n(\d+) \[label=", text, re.MULTILINE)
    edges = re.findall(r"^\s*n(\d+) -> n(\d+)$", text, re.MULTILINE)
    assert {int(n) for n in nodes} == set(p.simplified)
    assert len(edges) == sum(len(p.nodes.src[n]) for n in p.simplified)
    assert "subgraph cluster_" in text


def test_markup_in_dot_is_only_text(recording: Recording, tmp_path: Path) -> None:
    p = recording.data.programs[0]
    p.nodes.arg[:] = ['<b>"\\n</b>'] * len(p.nodes)
    text = recording.dot()
    assert "label=<" not in text
    if shutil.which("dot"):
        dot.draw(recording.data, 0, tmp_path / "a.svg")
        assert "&lt;b&gt;" in (tmp_path / "a.svg").read_text()


def test_without_graphviz_the_error_says_what_to_install(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="no program `dot` on the PATH: install Graphviz"):
        dot.draw(recording.data, 0, tmp_path / "a.svg")


def test_a_graph_too_large_for_dot_is_refused(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dot, "MAX_DRAWN", 3)
    with pytest.raises(ValueError, match=r"\d+ nodes are too many for Graphviz's dot"):
        dot.draw(recording.data, 0, tmp_path / "a.svg")
