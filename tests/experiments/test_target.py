"""`scripts/benchmark.py --target`: reading of programs, comparisons, refusals, and programs for TPUs."""

import importlib.util
import json
import os

import jax
import pytest

from ddjax import sharding
from ddjax.errors import InputError
from ddjax.experiments.benchmarks import benchmark, comparison, planning, targets, workloads
from ddjax.experiments.benchmarks import settings as benchmark_settings
from ddjax.experiments.benchmarks.compiled import Program, array_bytes
from ddjax.experiments.benchmarks.launches import Launches, launches
from ddjax.experiments.benchmarks.settings import BenchmarkSettings, cases
from ddjax.experiments.benchmarks.workloads import Case

CASE = Case("distillation", "linear", 4, 16, "ring", 64)


@pytest.mark.parametrize(
    ("types", "size"),
    [
        ("f32[100,784]", 4 * 100 * 784),
        ("f32[100,784]{1,0}", 4 * 100 * 784),
        ("f32[100,784]{1,0:T(8,128)}", 4 * 104 * 896),  # rows to a multiple of 8, columns to one of 128
        ("f32[100,784]{0,1:T(8,128)}", 4 * 128 * 784),  # the other way round
        ("f32[5,100,784]{1,2,0:T(8,128)S(1)}", 4 * 5 * 128 * 784),
        ("bf16[10,10]{1,0:T(8,128)(2,1)}", 2 * 16 * 128),
        ("pred[10]{0:T(512)(128)(4,1)}", 512),
        ("s32[]{:T(128)}", 4),
        ("f32[3]{0:T(8,128)}", 4 * 128),
        ("(f32[2]{0}, /*index=1*/(u8[3]{0}, s32[]))", 8 + 3 + 4),
        ("token[]", 0),
    ],
)
def test_bytes_of_arrays_by_hand(types, size):
    assert array_bytes(types) == size


HLO = """
HloModule jit_advance, is_scheduled=true

%inside_gather (p: f32[10,4], q: s32[6]) -> f32[6,4] {
  %p = f32[10,4]{1,0} parameter(0)
  %q = s32[6]{0} parameter(1)
  ROOT %gather.1 = f32[6,4]{1,0} gather(%p, %q), offset_dims={1}
}

%known_body (a: (s32[])) -> (s32[]) {
  %a = (s32[]) parameter(0)
  %n = s32[] get-tuple-element(%a), index=0
  %add.1 = s32[] add(%n, %n), backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %t.1 = (s32[]) tuple(%add.1)
}

%known_condition (b: (s32[])) -> pred[] {
  %b = (s32[]) parameter(0)
  %m = s32[] get-tuple-element(%b), index=0
  %limit = s32[] constant(99)
  ROOT %lt.1 = pred[] compare(%m, %limit), direction=LT
}

%counted_body (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = (s32[], f32[8]) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %x = f32[8]{0} get-tuple-element(%c), index=1
  %all-to-all-start.1 = ((f32[8]{0}), f32[8]{0}) all-to-all-start(%x), replica_groups={{0,1}}
  %all-to-all-done.1 = f32[8]{0} all-to-all-done(%all-to-all-start.1)
  ROOT %t.2 = (s32[], f32[8]) tuple(%k, %all-to-all-done.1)
}

%counted_condition (d: (s32[], f32[8])) -> pred[] {
  %d = (s32[], f32[8]) parameter(0)
  %l = s32[] get-tuple-element(%d), index=0
  %bound = s32[]{:T(128)} constant(5)
  ROOT %lt.2 = pred[] compare(%l, %bound), direction=LT
}

%round (e: (s32[], f32[8], f32[10,4], s32[6])) -> (s32[], f32[8], f32[10,4], s32[6]) {
  %e = (s32[], f32[8], f32[10,4], s32[6]) parameter(0)
  %i = s32[] get-tuple-element(%e), index=0
  %y = f32[8]{0} get-tuple-element(%e), index=1
  %table = f32[10,4]{1,0} get-tuple-element(%e), index=2
  %rows = s32[6]{0} get-tuple-element(%e), index=3
  %fusion.1 = f32[6,4]{1,0} fusion(%table, %rows), kind=kLoop, calls=%inside_gather
  %sort.1 = s32[6]{0} sort(%rows), dimensions={0}, to_apply=%less
  %scaled = f32[8]{0} multiply(%y, %y), backend_config={"window_config":{"estimated_cycles":"100"}}
  %unknown = f32[8]{0} add(%y, %y), backend_config={"window_config":{"estimated_cycles":"9223372036854775807"}}
  %start = (s32[]) tuple(%i)
  %while.1 = (s32[]) while(%start), condition=%known_condition, body=%known_body, backend_config={"known_trip_count":{"n":"7"}}
  %begin = (s32[], f32[8]) tuple(%i, %scaled)
  %while.2 = (s32[], f32[8]) while(%begin), condition=%counted_condition, body=%counted_body
  ROOT %t.3 = (s32[], f32[8], f32[10,4], s32[6]) tuple(%i, %y, %table, %sort.1)
}

%going_on (f: (s32[], f32[8], f32[10,4], s32[6])) -> pred[] {
  %f = (s32[], f32[8], f32[10,4], s32[6]) parameter(0)
  %flag = u32[] get-tuple-element(%f), index=0
  ROOT %all-reduce.1 = u32[] all-reduce(%flag), to_apply=%or, backend_config={"window_config":{"estimated_cycles":"1"}}
}

ENTRY %main (state: (s32[], f32[8], f32[10,4], s32[6])) -> (s32[], f32[8], f32[10,4], s32[6]) {
  %state = (s32[], f32[8], f32[10,4], s32[6]) parameter(0)
  %before = f32[1000]{0} broadcast(%state), dimensions={}, backend_config={"window_config":{"estimated_cycles":"5000"}}
  ROOT %while.3 = (s32[], f32[8], f32[10,4], s32[6]) while(%state), condition=%going_on, body=%round
}
"""  # noqa: E501


def test_a_round_is_read_with_the_trips_of_its_loops():
    program = Program(HLO)
    assert program.collectives() == {"all-reduce": 1, "all-to-all": 5}
    assert program.collective_bytes() == 4 + 5 * 32
    assert program.cycles() == 1 + 100 + 7 * 10
    assert program.unestimated_bytes() == {"gather": 4 * 24, "sort": 4 * 6}
    assert program.sorts() == 1
    assert program.kernels() == 1 + 4 + 7 + 5


def test_traffic_is_what_is_read_and_written():
    gathered = 96 + 24 + 96  # 6 rows of 4 numbers and their numbers; not the table of 160 bytes
    elementwise = 2 * (32 + 32)  # read once, though both operands are the same array
    assert Program(HLO).traffic_bytes() == gathered + 48 + elementwise + 7 * 8 + 5 * 64 + 8


def test_the_whole_program_has_what_comes_before_the_loop():
    program = Program(HLO, whole=True)
    assert program.cycles() == 5000 + 100 + 7 * 10
    assert program.kernels() == 1 + 4 + 7 + 5  # the loop over rounds has no bound, so it counts once


THUNKS = """
000: kCommandBuffer [source | next=002]
    001: kCustomKernel [source | sink] before grid: [1, 1, 1]
002: kWhile [prev=000 | sink]
condition:
    003: kAllReduce [source | sink] kAllReduce
  body:
    000: kCommandBuffer [source | next=006]
        004: kCustomKernel [source | sink] first grid: [1, 1, 1]
        005: kCopy [source | sink] kCopy
    006: kWhile [source | sink]
condition:
        007: kCustomKernel [source | sink] compare grid: [1, 1, 1]
      body:
        008: kDynamicSliceFusion [source | sink] params=1
            009: kCopy [source | sink] kCopy
    011: kAsyncStart [source | sink] stream=communication_stream[0]
        010: kAllToAll [source | sink] kAllToAll
    012: kAsyncDone [source | sink] async_id=11
"""


def test_launches_by_hand():
    # In a round: 003, 004, 005, 007, 009 and 010, of which 004 and 005 lie in the one graph of the loop.
    assert launches(THUNKS) == Launches(different=6, in_graphs=2, graphs=1, host_in_loop=True)
    assert launches(THUNKS, whole=True) == Launches(different=7, in_graphs=3, graphs=2, host_in_loop=True)


def test_a_loop_in_a_graph_needs_no_host():
    text = "000: kCommandBuffer [s]\n    001: kWhile [s]\n        002: kCustomKernel [s]\n        003: kCopy [s]\n"
    assert launches(text) == Launches(different=2, in_graphs=2, graphs=1, host_in_loop=False)


@pytest.mark.parametrize(
    "case", [CASE, Case("evaluation", "cnn", 3, 2, None, None, examples_per_device=7, test_examples=5)]
)
def test_shapes_are_those_of_the_data(case):
    def found(problem):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), problem._replace(network=None))

    problem = workloads.problem(case)
    assert found(planning.shapes(case, problem.network)) == found(problem)


def test_a_matrix_that_would_not_fit_here_is_never_made():
    """`W` of 60,000 devices takes 14 GB, and 29 GB in double precision."""
    (case,) = cases(BenchmarkSettings(work="dsgd", models="linear", devices="60000", mixing_product="dense"))
    weights = planning.simulation(case, sharding.mesh(jax.devices()[:1])).problem.network.weights
    assert isinstance(weights, jax.ShapeDtypeStruct)
    assert weights.shape == (60_000, 60_000)


ROW = {
    "target": "v5e:1",
    **CASE._asdict(),
    "fits": True,
    "temporary_bytes": 1000,
    "estimate_ms": 2.0,
    "traffic_bytes": None,
    "collectives": 0,
    "collective_bytes": 0,
    "kernels": 30,
    "versions": {"jax": "0.1"},
}
UNFIT = ROW | dict.fromkeys(comparison.FIGURES) | {"fits": False}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"temporary_bytes": 1100, "estimate_ms": 1.0, "kernels": 33}, ""),
        ({"temporary_bytes": 1101}, "temporary_bytes 1000 → 1101"),
        ({"estimate_ms": 2.5, "kernels": 40}, "estimate_ms 2 → 2.5, kernels 30 → 40"),
        ({"collectives": 1}, "collectives 0 → 1"),
        (UNFIT, "no longer fits"),
        (
            {"kernels": 90, "versions": {"jax": "0.2"}},
            "kernels 30 → 90, compiled with {'jax': '0.2'}, before with {'jax': '0.1'}",
        ),
        ({"devices": 5, "kernels": 90}, ""),  # another row
    ],
)
def test_what_is_worse(change, says):
    line = comparison.worse(ROW | change, [ROW], 0.1)
    assert line == (f"v5e:1 distillation linear 4×16: {says}" if says else "")


def test_what_did_not_fit_is_worse_in_nothing():
    assert comparison.worse(ROW, [UNFIT], 0.1) == comparison.worse(UNFIT, [UNFIT], 0.1) == ""


@pytest.fixture
def installed(monkeypatch):
    """Make the command believe that all compilers are installed."""
    monkeypatch.setattr(benchmark_settings, "target", lambda spec: targets.TARGETS.parse(spec).build())


def call(*flags):
    """The exit code of benchmark.py with these flags."""
    return benchmark.main(["benchmark.py", *flags])


def test_rows_are_kept_and_compared(installed, monkeypatch, tmp_path, capsys):
    now = ROW | {"forms_picked": "for 1 chip", "refusal": None}
    monkeypatch.setattr(benchmark, "_rows", lambda jobs, columns, output: [now])
    kept = tmp_path / "kept.json"
    kept.write_text("an older one")
    flags = ["--target=v5e:1", "--work=distillation", "--models=linear", "--devices=4", f"--output={tmp_path / 'new'}"]
    assert call(*flags, f"--save={kept}") == 0
    assert json.loads(kept.read_text()) == [now]
    assert call(*flags, f"--compare={kept}") == 0
    assert "no row is worse" in capsys.readouterr().out
    now["kernels"] = 31
    assert call(*flags, f"--compare={kept}") == 0
    assert call(*flags, f"--compare={kept}", "--tolerance=0.03") == 1
    assert capsys.readouterr().out.count("kernels 30 → 31") == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--target=v5"], "did you mean 'v5e'"),
        (["--target=v5e"], "expected 'v5e:CHIPS'"),
        (["--target=v5e:3"], "CHIPS must be one of 1, 4,"),
        (["--target=v5e:1", "--baseline=torch"], "only compiles, so --baseline"),
        (["--target=v5e:1", "--repeats=3"], "only compiles, so --repeats"),
        (["--target=v5e:1", "--host_devices=2"], "only compiles, so --host_devices"),
        (["--target=h100:1,v5e:1", "--precision=tf32"], "v5e:1 is a TPU"),
        (["--target=v5e:1", "--mixing_product=spares"], "unknown mixing product"),
        (["--target=v5e:1", "--examples_per_device=0"], "examples_per_device must be"),
        (["--target=v5e:1", "--test_examples=0"], "test_examples must be"),
        (["--target=v5e:1", "--tolerance=-1"], "tolerance must be"),
        (["--target=v5e:1", "--compare=nowhere.json"], "no file 'nowhere.json'"),
        (["--target=v5e:1", f"--compare={__file__}"], "does not hold rows"),
        (["--target=v5e:1", "--save=."], "is a folder"),
        (["--save=rows.json"], "--save is only used with --target"),
        (["--compare=rows.json"], "--compare is only used with --target"),
        (["--work=evaluation", "--baseline=torch"], "--baseline=torch cannot run the work 'evaluation'"),
    ],
)
def test_mistakes_are_one_line(flags, says, installed, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert call(*flags, f"--output={tmp_path / 'rows.json'}") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_baseline_without_the_rows_is_refused(installed, tmp_path, capsys):
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps([ROW]))
    assert call("--target=v5e:1", "--devices=8", f"--compare={kept}", f"--output={tmp_path / 'rows.json'}") == 2
    assert "none of the rows to compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "package", "extra"), [("v5e:4", "libtpu", "tpu"), ("h100:1", "jax-cuda12-plugin", "cuda")]
)
def test_without_the_compiler(spec, package, extra, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call(f"--target={spec}", f"--output={tmp_path / 'rows.json'}") == 2
    error = capsys.readouterr().err
    assert f"{package}, which is not installed: pip install -e '.[{extra}]'" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("spec", "package"), [("v5e:4", "libtpu"), ("h100:1", "jax-cuda12-plugin")])
def test_a_compiler_of_another_version(spec, package, monkeypatch, tmp_path, capsys):
    there = targets.version
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(targets, "version", lambda name: "0.0.1" if name == package else there(name))
    assert call(f"--target={spec}", f"--output={tmp_path / 'rows.json'}") == 2
    error = capsys.readouterr().err
    assert f"needs {package} 0." in error
    assert "0.0.1 is installed" in error
    assert error.count("\n") == 1


def test_memory_of_a_gpu_is_what_jax_takes(monkeypatch):
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    usual = targets.TARGETS.parse("h100:1").build().available_bytes
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.9")
    assert targets.TARGETS.parse("h100:1").build().available_bytes == pytest.approx(usual * 0.9 / 0.75, abs=2)
    assert 60e9 < usual < 80e9
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "most")
    with pytest.raises(InputError, match="XLA_CLIENT_MEM_FRACTION must be a positive number up to 1, got 'most'"):
        targets.TARGETS.parse("h100:1").build()


@pytest.mark.slow
def test_a_measured_evaluation(tmp_path):
    output = tmp_path / "rows.json"
    flags = ["--models=linear", "--devices=4", "--repeats=2", "--seconds=0.001", "--test_examples=50"]
    assert call("--work=evaluation", *flags, f"--output={output}") == 0
    (row,) = json.loads(output.read_text())
    assert row["test_examples"] == 50
    assert row["us_per_device_step"] > 0
    assert row["ratio_to_torch"] is row["ratio_to_parts"] is row["topology"] is None


@pytest.mark.tpu
@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="the extra tpu is not installed, so no TPU is compiled for"
)
def test_tpus_are_compiled_for(optimized, tmp_path, capfd):
    """Figures that follow from the shapes, and bounds that hold for a correct program."""
    output = tmp_path / "rows.json"
    flags = ["--models=linear", "--devices=64", "--mixing_product=gather", "--test_examples=100"]
    environment = dict(os.environ)
    assert call("--target=v5e:4", "--work=distillation,evaluation", *flags, f"--output={output}") == 0
    assert dict(os.environ) == environment
    printed = capfd.readouterr().out.splitlines()
    assert printed[0].startswith("target")
    assert [line.split()[:2] for line in printed[1:3]] == [["v5e:4", "distillation"], ["v5e:4", "evaluation"]]
    assert all(len(line) <= 120 for line in printed if "forms for" not in line)  # that one is a sentence
    distillation, evaluation = json.loads(output.read_text())
    assert distillation["fits"]
    assert evaluation["fits"]
    # Mixing exchanges 640 soft decisions per device twice; shards also agree on whether to continue.
    assert distillation["collective_kinds"]["all-to-all"] == 2
    assert distillation["collectives"] - 2 <= 2
    assert 2 * 4 * 64 * 640 / 4 <= distillation["collective_bytes"] < 2 * 2 * 4 * 64 * 640 / 4
    # Each chip holds the private inputs of its own devices and all reference inputs.
    inputs = 4 * 784 * (64 * 100 / 4 + 2000)
    assert inputs < distillation["held_bytes"] < 2 * inputs
    assert distillation["sorts"] <= 1
    assert distillation["temporary_bytes"] < distillation["ddjax_estimate_bytes"]
    assert 0.01 < distillation["estimate_ms"] < 1
    assert 0.01 < evaluation["estimate_ms"] < 10
    # Parameters of 65,536 devices are 27 GB, and a chip has 17.
    output = tmp_path / "refused.json"
    flags = ["--models=mlp", "--devices=65536", "--examples_per_device=20"]
    assert call("--target=v5e:1", "--work=local_sgd", *flags, f"--output={output}") == 0
    (row,) = json.loads(output.read_text())
    assert not row["fits"]
    assert "RESOURCE_EXHAUSTED" in row["refusal"]
    assert row["temporary_bytes"] is None
