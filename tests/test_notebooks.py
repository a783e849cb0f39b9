"""The notebooks of the docs, which the build of the site executes."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("**/*.ipynb"))


def sources(notebook, kind):
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_has_no_outputs_a_title_and_a_place_in_the_site(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    title = re.match(r"# (.+)\n", sources(notebook, "markdown")[0])[1]
    assert f"- {title}: {notebook.relative_to(DOCS)}\n" in (DOCS.parent / "mkdocs.yml").read_text()


def test_the_build_of_the_site_executes_notebooks_and_fails_with_them():
    settings = (DOCS.parent / "mkdocs.yml").read_text().partition("  - mkdocs-jupyter:\n")[2].splitlines()
    assert NOTEBOOKS
    assert {"      execute: true", "      allow_errors: false"} <= set(settings)


def test_the_algorithm_of_a_notebook_is_the_skeleton_of_the_page():
    skeleton = re.search(r"# proximal_dsgd\.py\n(.*?)\n```", (DOCS / "extending.md").read_text(), re.DOTALL)[1]
    cells = sources(DOCS / "notebooks/own_algorithm.ipynb", "code")
    assert "\n\n\n".join(cell for cell in cells if cell in skeleton) == skeleton


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_page_that_a_notebook_names_exists(notebook):
    for path in re.findall(r"`((?:docs|scripts)/[\w./]+)`", "".join(sources(notebook, "markdown"))):
        assert (DOCS.parent / path).exists(), path
