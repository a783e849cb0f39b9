"""Pages and flag files: what they point to is there, and what they ask for is understood."""

import re
from pathlib import Path

import pytest
from commands import cells

from ddjax.experiments.benchmarks.settings import BenchmarkSettings, benchmark_fields, cases
from ddjax.experiments.flags import parse
from ddjax.experiments.studies.settings import study_fields
from ddjax.experiments.studies.study import planned_cells

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
FLAG_FILES = sorted(ROOT.glob("scripts/flags/*.flags"))


def headings(page):
    """The names by which links find the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


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


@pytest.mark.parametrize("file", FLAG_FILES, ids=lambda file: file.stem)
def test_flag_files_are_understood(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a9a").write_text("+1 1:1\n")  # a path without an ending is known by what it holds
    line = ["", f"--flagfile={file}"]
    if "benchmark.py" in file.read_text():
        assert cases(parse(benchmark_fields(), [*line, "--baseline="]).take(BenchmarkSettings))
    elif "convergence.py" in file.read_text():
        assert planned_cells(parse(study_fields(), line))
    else:
        assert cells(line[1])
