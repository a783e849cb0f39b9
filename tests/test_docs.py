"""Pages and flag files: the targets of links exist, and commands are understood."""

import re
import shlex
from pathlib import Path

import pytest
from commands import FAST, call, cells, settings

import ddjax
from ddjax.experiments.benchmarks.settings import BenchmarkSettings, benchmark_fields, cases
from ddjax.experiments.fields import fields
from ddjax.experiments.flags import parse
from ddjax.experiments.plots import PlotSettings
from ddjax.experiments.reports.report import ReportSettings
from ddjax.experiments.studies.settings import study_fields
from ddjax.experiments.studies.study import planned_cells

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
FLAG_FILES = sorted(ROOT.glob("scripts/flags/*.flags"))


def headings(page):
    """The names by which links find the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """The scripts that a page runs, with their flags."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                found = [i for i, word in enumerate(words) if word.startswith("scripts/")]
                if found and "…" not in part:
                    yield Path(words[found[0]]).stem, words[found[0] + 1 :]


def understand(script, flags):
    """Read a command as its script would; raise `InputError` if the script refuses it."""
    if script == "train":
        settings(*flags).check()
    elif script == "sweep":
        assert cells(*flags)
    elif script == "convergence":
        assert planned_cells(parse(study_fields(), ["", *flags]))
    elif script == "benchmark":
        assert cases(parse(benchmark_fields(), ["", *flags, "--baseline="]).take(BenchmarkSettings))
    else:
        known = {"report": ReportSettings, "plots": PlotSettings}[script]
        parse(fields(known), ["", *flags])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith("http"):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not heading or heading in headings(target), link
    for name in re.findall(r"scripts/flags/[a-z_0-9]+\.flags", page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scripts").symlink_to(ROOT / "scripts")
    Path("a9a").write_text("+1 1:1\n")  # ddjax recognizes a path without an ending by its content
    for script, flags in commands(page):
        understand(script, flags)


def test_the_readme_is_short_and_what_it_shows_runs(tmp_path, monkeypatch, capsys):
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 90
    train, make = blocks(readme, "python")
    exec(train.replace("rounds=500", "rounds=20").replace("eval_every=100", "eval_every=10"), {})
    assert capsys.readouterr().out.startswith("round 0: accuracy ")
    assert train in (ROOT / "docs/guide/train.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(make, {})
    assert call("--dataset=mine.npz", *FAST) == 0


def test_the_reference_has_every_public_function():
    pages = "".join(page.read_text() for page in ROOT.glob("docs/reference/*.md"))
    shown = {name.rsplit(".", 1)[1] for name in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}
    assert {name for name in ddjax.__all__ if callable(getattr(ddjax, name))} <= shown


@pytest.mark.parametrize("file", FLAG_FILES, ids=lambda file: file.stem)
def test_flag_files_are_understood(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a9a").write_text("+1 1:1\n")  # ddjax recognizes a path without an ending by its content
    line = ["", f"--flagfile={file}"]
    if "benchmark.py" in file.read_text():
        assert cases(parse(benchmark_fields(), [*line, "--baseline="]).take(BenchmarkSettings))
    elif "convergence.py" in file.read_text():
        assert planned_cells(parse(study_fields(), line))
    else:
        assert cells(line[1])
