"""docs/extending.md: every skeleton is a complete file that registers itself and runs by the command below it."""

import re
import shlex
from pathlib import Path

import pytest
from commands import call

ROOT = Path(__file__).parents[1]
SKELETONS = {
    name: (code, command)
    for name, code, command in re.findall(
        r"```python\n# (\w+\.py)\n(.*?)```\n```bash\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.S
    )
}


def test_there_is_one_for_each_kind_of_part():
    assert len(SKELETONS) == 11


@pytest.mark.slow
@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("name", SKELETONS)
def test_a_skeleton_runs(tmp_path, monkeypatch, name):
    code, command = SKELETONS[name]
    (tmp_path / name).write_text(code)
    script, *flags = shlex.split(command, comments=True)
    assert script == "train.py"
    assert f"--include={name}" in flags
    tiny = ["--rounds=6", "--eval_every=3", "--devices=4", "--models=linear", "--output_dir=run"]
    monkeypatch.chdir(tmp_path)
    assert call(*tiny, *flags) == 0
    assert (tmp_path / "run" / "summary.json").exists()
