"""Any input ends in a run that says what it understood, or in exit code 2 with one line; checked by Hypothesis.

`pytest tests/test_properties.py -n 0 --hypothesis-profile=full` tries some ten thousand inputs. The
usual profile tries a few hundred, always the same ones.
"""

import contextlib
import csv
import io
import json
import math
import tempfile
from pathlib import Path

import jax
import numpy as np
from commands import call
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from ddjax import data
from ddjax.errors import InputError
from ddjax.experiments import Settings, build, console
from ddjax.experiments.fields import fields
from ddjax.experiments.flags import parse
from ddjax.networks import build_topology

few = profile(max_examples=max(8, profile.default.max_examples // 8))


def one_line(error):
    """The message of a mistake: one line that is not a Python traceback."""
    text = str(error)
    assert text.strip()
    for sign in ("\n", "Traceback", "object at 0x"):
        assert sign not in text.strip(), text


def understood(dataset, devices=2, **choices):
    """The facts and the opening lines of a data set on a few devices."""
    problem, facts = data.prepare(dataset, build_topology("ring", devices).network, **choices)
    json.dumps(facts, allow_nan=False)
    for array in (problem.x, problem.reference, problem.x_test):
        assert np.isfinite(np.asarray(array, float)).all()
    return problem, facts


# Tables.

WORDS = st.sampled_from(["red", "green", " green", "blue ", "Zürich", "a,b", 'a "b"', "3 m", "x\u200by"])
SIGNS = st.sampled_from(["", "?", "NA", "n/a", "None", "nan", "-"])
ODD = st.sampled_from(["34%", "34,000", "1_000", "1e400", "inf", "-inf", "0x10", "2020-01-01", "1.2.3", "٣", "True"])
NUMBERS = st.one_of(
    st.integers(-5, 5).map(str),
    st.integers(-(10**9), 10**9).map(str),
    st.floats(-1e6, 1e6).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
CELLS = {
    "number": NUMBERS,
    "binary": st.sampled_from(["0", "1"]),
    "word": WORDS,
    "number or missing": st.one_of(NUMBERS, NUMBERS, SIGNS),
    "word or missing": st.one_of(WORDS, WORDS, SIGNS),
    "number or odd": st.one_of(NUMBERS, NUMBERS, NUMBERS, ODD),
    "anything": st.one_of(NUMBERS, WORDS, SIGNS, ODD),
    "constant": st.just("7"),
}
NAMES = st.sampled_from(["a", "b", "age", "y", "id", " y", "Unnamed: 0", "", "größe", "1", "a+b"])


@st.composite
def tables(draw):
    """Header, rows, their format, and the target column."""
    width = draw(st.integers(1, 5))
    header = draw(st.lists(NAMES, min_size=width, max_size=width, unique_by=draw(st.sampled_from([str, id]))))
    kinds = [draw(st.sampled_from(sorted(CELLS))) for _ in header]
    count = draw(st.integers(0, 30))
    rows = [[draw(CELLS[kind]) for kind in kinds] for _ in range(count)]
    if rows and draw(st.integers(0, 5)) == 0:  # a row longer or shorter than the header
        row = draw(st.sampled_from(rows))
        row.append("1") if draw(st.booleans()) else row.pop()
    return header, rows, draw(st.sampled_from([",", ",", ",", ";", "\t"])), draw(st.sampled_from([*header, "nowhere"]))


def written(table, ending, mark):
    header, rows, separator, _ = table
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator=ending).writerows([header, *rows])
    return text.getvalue().encode("utf-8-sig" if mark else "utf-8")


@given(tables(), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.sampled_from(["", "classification", "regression"]))
def test_a_table_is_understood_or_refused(table, ending, mark, task):
    header, rows, _, target = table
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_bytes(written(table, ending, mark))
        try:
            dataset = data.load_dataset(str(path), devices=2, train=9, seed=0, target_column=target, task=task)
            problem, facts = understood(dataset)
        except InputError as error:
            one_line(error)
            return
    place = [name.strip() for name in header].index(target.strip())
    values = [" ".join(row[place].replace("\u200b", "").split()) for row in rows if any(map(str.strip, row))]
    if facts["task"] == "classification" and facts["classes"]:
        assert facts["outputs"] == len(facts["classes"]) < len(values)
        try:  # numbers are compared as numbers
            found = {float(value) for value in values}
        except ValueError:
            found = set(values)
        assert len(found) <= facts["outputs"]
    named = {column["name"]: column for column in facts["columns"]}
    assert target not in named
    for name, column in named.items():
        texts = [row[[n.strip() for n in header].index(name)] for row in rows] if name in map(str.strip, header) else []
        numbers = [text for text in texts if _is_number(text)]
        if column["kind"] == "category" and texts:
            assert 2 * len(numbers) <= len([text for text in texts if text.strip()]), "numbers became categories"
    assert problem.x.shape[1] >= 1


def _is_number(text):
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


# Arrays.

SHAPES = st.sampled_from([(3,), (1,), (2, 2), (6, 6), (6, 6, 3), (3, 6, 6), (4, 8, 8), (), (2, 2, 2, 2)])
DTYPES = st.sampled_from(["float32", "float64", "uint8", "int64", "bool", "float16", "complex64", "U3", "object"])
LABELS = st.sampled_from(
    ["from 0", "from 1", "gaps", "whole floats", "one hot", "column", "words", "bool", "numbers", "two numbers", "many"]
)


@st.composite
def arrays(draw):
    """The four arrays of a .npz, some of them with an error."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    shape, dtype, kind = draw(SHAPES), draw(DTYPES), draw(LABELS)
    scale = draw(st.sampled_from([1.0, 1.0, 255.0, 1e-8, 1e30, 0.0]))
    saved = {}
    for part, count in (("train", draw(st.integers(0, 60))), ("test", draw(st.integers(0, 20)))):
        x = np.abs(rng.normal(size=(count, *shape))) * scale
        with np.errstate(all="ignore"):
            saved[f"x_{part}"] = x.astype(dtype)
        labels = rng.integers(3, size=count)
        saved[f"y_{part}"] = {
            "from 0": labels,
            "from 1": labels + 1,
            "gaps": np.array([0, 5, 9])[labels],
            "whole floats": labels.astype(float),
            "one hot": np.eye(3)[labels],
            "column": labels[:, None],
            "words": np.array(["cat", "dog", "cow"])[labels],
            "bool": labels == 1,
            "numbers": rng.normal(size=count),
            "two numbers": rng.normal(size=(count, 2)),
            "many": np.arange(count),
        }[kind]
    flaw = draw(st.sampled_from(["", "", "", "missing", "nan", "length", "other shape"]))
    if flaw == "missing":
        del saved[draw(st.sampled_from(sorted(saved)))]
    elif flaw == "nan" and saved["x_train"].dtype.kind == "f" and saved["x_train"].size:
        saved["x_train"].flat[0] = draw(st.sampled_from([np.nan, np.inf]))
    elif flaw == "length":
        saved["y_train"] = saved["y_train"][1:]
    elif flaw == "other shape":
        saved["x_test"] = saved["x_test"][..., None]
    return saved, kind


@given(arrays(), st.sampled_from(["", "columns", "whole", "none"]))
def test_arrays_are_understood_or_refused(made, standardize):
    saved, kind = made
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, **saved)
        try:
            dataset = data.load_dataset(str(path), devices=2, train=9, seed=0)
            problem, facts = understood(dataset, standardize=standardize)
        except InputError as error:
            one_line(error)
            return
    if (
        kind != "whole floats" or len(saved["y_train"]) >= 20
    ):  # in a few rows, 0.0, 1.0 and 2.0 may be numbers instead of classes
        assert facts["task"] == ("regression" if "numbers" in kind else "classification")
    if facts["task"] == "classification" and kind != "many":
        assert facts["outputs"] <= 3, "more classes than there are"
    if not standardize:
        size = float(np.sqrt(np.mean(np.asarray(problem.x, float) ** 2)))
        assert size < 10, "inputs are far from unit scale"


# Edge files.

ENDS = st.one_of(st.integers(-1, 5).map(str), st.sampled_from(["a", "1.5", "", "0x1", "٣", "1e3", "99999999999999"]))
LINES = st.one_of(
    st.tuples(ENDS, ENDS).map(" ".join),
    st.tuples(ENDS, ENDS).map("\t".join),
    st.tuples(ENDS, ENDS, st.sampled_from(["{}", "{'weight': 1}", "2.5", "7"])).map(" ".join),
    st.sampled_from(["# a comment", "", "   ", "0 1 # here", "%", "0,1", "0;1"]),
)


@given(st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n"]), st.integers(2, 5), st.booleans())
def test_edge_files_are_understood_or_refused(lines, ending, devices, whole):
    if whole:  # a ring first, so that some are connected
        lines = [f"{n} {(n + 1) % devices}" for n in range(devices)] + lines
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.edges"
        path.write_bytes(ending.join(lines).encode())
        try:
            topology = build_topology(f"edges:{path}", devices)
        except InputError as error:
            one_line(error)
            return
    (matrix,) = topology.matrices
    dense = matrix.toarray()
    np.testing.assert_allclose(dense.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(dense.sum(1), 1, atol=1e-6)
    assert (np.linalg.matrix_power(dense + np.eye(devices), devices) > 0).all(), "not connected"


# Flags.

KNOWN = fields(Settings)
ODD_VALUES = ["-1", "nan", "inf", "1e308", "2147483648", "", " ", "x", "ring:", "top_k:0", "1:2:3", "0,1", "ä"]
QUIET = {"output_dir", "flagfile", "include", "coordinator_address", "resume", "tensorboard", "host_devices"}


def texts(field):
    """Values of a flag, some of them wrong."""
    if field.registry:
        usual = st.sampled_from([entry.name for entry in field.registry.entries()])
    elif field.kind is bool:
        usual = st.sampled_from(["true", "false"])
    elif field.kind is int:
        usual = st.integers(0, 6).map(str)
    elif field.kind is float:
        usual = st.sampled_from(["0", "0.1", "0.5", "1", "3"])
    else:
        usual = st.sampled_from(["", "linear", "mlp:1+linear:3", "0.5", "0.2,0.7"])
    odd = st.sampled_from(
        ["-1", "nan", "inf", "1e308", "2147483648", "", " ", "x", "ring:", "top_k:0", "1:2:3", "0,1", "ä"]
    )
    return st.one_of(usual, usual, usual, odd)


@st.composite
def command_lines(draw):
    names = draw(st.lists(st.sampled_from(sorted(set(KNOWN) - QUIET)), max_size=4, unique=True))
    return [f"--{name}={draw(texts(KNOWN[name]))}" for name in names]


SMALL = ["--devices=4", "--models=linear", "--rounds=2", "--eval_every=1", "--examples_per_device=5"]
SMALL += ["--reference_size=12", "--eval_examples=10", "--reference_batch_size=4"]


@few
@given(command_lines())
def test_a_command_line_is_run_or_refused(flags):
    given = dict(flag.split("=", 1) for flag in [*SMALL, *flags])
    for name, most in (("--rounds", 6), ("--devices", 8)):  # the requested work may take long, which is not an error
        with contextlib.suppress(ValueError):
            if float(given[name]) > most:
                given[name] = str(most)
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call(*(f"{name}={value}" for name, value in given.items()), f"--output_dir={run}")
        printed, error = out.getvalue(), err.getvalue()
        if code == 2:
            assert error.startswith("train.py: "), error
            assert error.count("\n") == 1, error
            assert not run.exists()
            return
        for opening in ("task ", "inputs ", "examples ", "training "):
            assert f"\n  {opening}" in printed
        if code == 3:
            assert error.count("\n") == 1, error
            assert not (run / "summary.json").exists()
            return
        assert code == 0, error
        summary = json.loads((run / "summary.json").read_text())
        config = json.loads((run / "config.json").read_text())
        assert config["data"]["digest"]
        assert summary["rounds"] == config["flags"]["rounds"]
        assert not list(run.glob(".*"))
    jax.clear_caches()


FLAG_LINES = [
    *("--devices=5", "-rounds=3", "--seed 4", "# a note", "// a note", "", "devices=5", "--", "--=3", "---x=1"),
    *("--flagfile=other.flags", "--flagfile=this.flags", "--flagfile", "--flagfile=", "--nosuch=1", "é", "--models=é"),
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "latin-1"]


@given(
    st.lists(st.one_of(st.sampled_from(FLAG_LINES), st.text(max_size=12)), max_size=6),
    st.sampled_from(ENCODINGS),
    st.binary(max_size=2),
)
def test_a_flag_file_is_read_or_refused(lines, encoding, tail):
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("other.flags").write_text("--seed=3\n")
        Path("this.flags").write_bytes("\n".join(lines).encode(encoding, "replace") + tail)
        try:
            given = parse(KNOWN, ["train.py", "--flagfile=this.flags"])
            given.take(Settings).check()
        except InputError as error:
            one_line(error)
            return
    plain = [line.strip() for line in lines if line.strip() and not line.strip().startswith(("#", "//"))]
    if "--devices=5" in plain:
        assert given.values["devices"] == 5
    assert len(given.present) <= len(plain) + bool(tail)


def test_the_opening_lines_name_what_was_understood(tmp_path, capsys):
    """One table with all flags that describe it."""
    lines = ["id,age,town,junk,y"]
    lines += [
        f"{i},{'?' if i == 3 else i % 7},{'Bern' if i % 2 else 'Basel'},{i},{'yes' if i % 3 else 'no'}"
        for i in range(60)
    ]
    (tmp_path / "t.csv").write_text("\n".join([*lines, lines[1]]))
    settings = Settings(
        dataset=str(tmp_path / "t.csv"), target_column="y", ignore_columns="junk+id", devices=2, reference_batch_size=4
    )
    said = "\n".join(console.data_lines(build(settings)))
    assert "task       classification, 2 classes: no, yes" in said
    assert "inputs     1 column of numbers: age" in said
    assert "1 column of texts: town" in said
    assert "missing    1 values" in said
    assert "ignored    id\n" in said
    assert "ignored    junk\n" in said
    assert "test examples are training examples too" in said
