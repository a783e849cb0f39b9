"""The layers of the package: each imports only from earlier layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ddjax

PACKAGE = Path(ddjax.__file__).parent
# A room is a sub-package or a top-level module. Rooms on one line may import one another.
LAYERS = (
    ("types", "errors", "registry", "forms", "footprint"),
    ("stacked", "sharding", "schedules"),
    ("examples",),
    ("networks", "mixing", "models"),
    ("learning",),
    ("data",),
    ("theory",),
    ("algorithms",),
    ("simulation",),
    ("testing", "experiments"),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
# These are slow to import and rarely needed, so they are imported only where they are used.
LAZY = ("networkx", "pandas", "sklearn", "matplotlib", "orbax", "tensorboard", "torch", "distributed")


def imports(path):
    """Every module that a file imports, inside functions too, as `a.b.c`."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_room_imports_only_from_those_before_it(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "ddjax" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[room], f"{path}: {module}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_absl_is_imported_in_one_file(path):
    if path != PACKAGE / "experiments/flags.py":
        assert not any(module.split(".")[0] == "absl" for module in imports(path))


def loaded(statement):
    """The modules that are loaded after a statement, in a fresh process."""
    program = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_ddjax_loads_no_more_than_it_needs():
    modules = loaded("import ddjax")
    assert "ddjax.experiments" not in modules
    assert not modules & {*LAZY, "scipy.stats"}


def test_experiments_define_no_flags_of_the_process(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from absl import app, flags\n"
        "flags.DEFINE_integer('seed', 7, '')\n"
        "from ddjax.experiments import Settings, build\n"
        "def main(argv):\n"
        "    settings = Settings(devices=4, models='linear', rounds=2, eval_every=1, reference_batch_size=8)\n"
        "    history = build(settings).run()\n"
        "    print(flags.FLAGS.seed, [evaluation.round for evaluation in history])\n"
        "    assert 'devices' not in flags.FLAGS\n"
        "app.run(main)\n"
    )
    done = subprocess.run([sys.executable, program, "--seed=9"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["9 [0, 1, 2]"], done.stderr


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_package_hides_a_module_behind_a_function(path):
    """`import ddjax.algorithms.distillation as d` gives the module."""
    name = ".".join(("ddjax", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    if "torch" in name:
        pytest.importorskip("torch")
    __import__(name)
    parent, _, last = name.rpartition(".")
    assert getattr(sys.modules[parent], last) is sys.modules[name]


def test_files_fit_in_a_readers_head():
    lengths = sorted(len(path.read_text().splitlines()) for path in files() if path.name != "__init__.py")
    assert lengths[len(lengths) // 2] <= 150
    assert lengths[-1] <= 350
