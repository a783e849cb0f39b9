"""Pages and flag files: the targets of links exist, commands are understood, and those of README and the guide run."""

import json
import re
import shlex
from pathlib import Path

import pandas
import pytest
from commands import FAST, call, cells, settings

import ddjax
from ddjax.experiments import plots, train
from ddjax.experiments.benchmarks.settings import BenchmarkSettings, benchmark_fields, cases
from ddjax.experiments.fields import fields
from ddjax.experiments.flags import parse
from ddjax.experiments.plots import PlotSettings
from ddjax.experiments.reports import report
from ddjax.experiments.reports.report import ReportSettings
from ddjax.experiments.studies.settings import study_fields
from ddjax.experiments.studies.study import planned_cells
from ddjax.experiments.sweeps import sweep

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
NOTEBOOKS = sorted(ROOT.glob("docs/**/*.ipynb"))
FLAG_FILES = sorted(ROOT.glob("scripts/flags/*.flags"))
RUN = [*sorted(ROOT.glob("docs/guide/*.md")), ROOT / "README.md"]
MAINS = {"train": train, "sweep": sweep, "report": report, "plots": plots}
# Commands that are not run, and why.
NOT_RUN = {
    "benchmark": "starts a process for each row, and needs PyTorch; test_benchmark.py runs it",
    "--coordinator_address": "needs other processes, or Slurm",
    "--scheduler=HOST": "needs a cluster; test_dask.py starts one",
    "--precision=float64": "holds for a whole process; test_study.py runs studies in processes of their own",
    "--models=linear:8+mlp:16+cnn:8": "takes long to compile; test_train.py trains these models together",
    "--dataset=mine.npz": "is run below, on the file that README makes",
}
# Values with which commands run.
SMALL = {
    "train": {"rounds": 2, "eval_every": 1, "devices": 10, "models": "linear", "checkpoint_every": 1},
    "sweep": {"rounds": 2, "eval_every": 1, "devices": 4, "models": "linear", "seeds": 1, "trials": 1},
}
ONLY_IF_GIVEN = ("checkpoint_every", "seeds", "trials")


def content(page):
    """The text of a page; of a notebook, that of its Markdown cells."""
    text = page.read_text()
    if page.suffix == ".md":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def headings(page):
    """The names by which links find the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", content(page), re.MULTILINE)
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


def inline(page):
    """The commands within sentences and tables, without flags that stand for several, as in `--algorithm=…`."""
    for script, text in re.findall(r"`(\w+)\.py ((?:--\w+=[^` ]+ ?)+…?)`", page.read_text()):
        flags = [flag for flag in text.split() if "…" not in flag]
        if script == "train" or not all(flag.startswith("--flagfile=") for flag in flags):  # those are tested below
            yield script, flags


def reduced(script, flags):
    """The flags with which a test runs a command: few devices, rounds and seeds, and the last value of each list."""
    if script not in SMALL or "--resume" in flags:
        return flags
    given = dict(flag[2:].split("=", 1) for flag in flags)
    if script != "train":
        given = {name: value.rpartition(",")[2] for name, value in given.items()}
    small = {name: value for name, value in SMALL[script].items() if name in given or name not in ONLY_IF_GIVEN}
    return [f"--{name}={value}" for name, value in (given | small).items()]


def commands_to_run():
    """The commands that each page of `RUN` is the first to have, as a test runs them."""
    first = {}
    for page in RUN:
        for script, flags in commands(page):
            if not any(word in " ".join([script, *flags]) for word in NOT_RUN):
                first.setdefault((script, *reduced(script, flags)), page)
    return {page: [command for command in first if first[command] == page] for page in RUN if page in first.values()}


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


@pytest.mark.parametrize("page", PAGES + NOTEBOOKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", content(page)):
        if not link.startswith("http"):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not heading or heading in headings(target), link
    for name in re.findall(r"scripts/flags/[a-z_0-9]+\.flags", content(page)):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scripts").symlink_to(ROOT / "scripts")
    Path("a9a").write_text("+1 1:1\n")  # ddjax recognizes a path without an ending by its content
    for script, flags in [*commands(page), *inline(page)]:
        understand(script, flags)


@pytest.mark.slow
@pytest.mark.parametrize("page", commands_to_run(), ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch):
    """They run in the page's order, and then its lines of pandas read what they wrote."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        Path(name).write_text("".join(f"{i} {(i + 1) % 10}\n" for i in range(10)))
    for number, (script, *flags) in enumerate(commands_to_run()[page]):
        if script == "train" and not any(flag.startswith("--output_dir") for flag in flags):
            flags.append(f"--output_dir={['runs/one', 'runs/two', f'others/{number}'][min(number, 2)]}")
        flags = [str(path) for flag in flags for path in (Path().glob(flag) if "*" in flag else [flag])]
        assert MAINS[script].main([f"{script}.py", *flags]) == 0, (script, flags)
    for block in blocks(page, "text"):
        *lines, last = re.findall(r"^>>> (.+)$", block, re.MULTILINE) or [""]
        exec("\n".join(lines), names := {"pandas": pandas})
        assert not last or len(eval(last, names))


def test_settings_take_the_place_of_flags_in_python():
    _, settings = blocks(ROOT / "docs/guide/train.md", "python")
    names = {}
    exec(settings.replace("devices=64, rounds=500", "devices=4, rounds=2"), names)
    assert [evaluation.round for evaluation in names["history"]] == [0, 2]


def test_no_command_is_excused_in_vain():
    lines = [" ".join([script, *flags]) for page in RUN for script, flags in commands(page)]
    assert all(any(word in line for line in lines) for word in NOT_RUN)


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
