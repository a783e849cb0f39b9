"""Record the numbers of a set of short runs, to show that a change of structure changes none of them.

    python tests/record_numbers.py CHECKOUT OUTPUT                 # records
    python tests/record_numbers.py CHECKOUT OUTPUT --against=OTHER # also compares; exit code 1 if a table differs

Each run is a separate process. The script keeps `metrics.csv`, `links.csv`, `results.csv` and `convergence.csv`,
without the columns that depend on the clock, and `results.csv` also without the columns of settings.
"""

import argparse
import csv
import io
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

BASE = (
    "--devices=6 --rounds=6 --eval_every=3 --examples_per_device=20 --reference_size=40 --reference_batch_size=8 "
    "--host_devices=1 "
)
LINEAR = BASE + "--models=linear "
REGRESSION = BASE + "--models=linear --dataset=synthetic_regression --learning_rate=0.01 "
ALGORITHMS = [
    "dsgd",
    "choco",
    "push_sum",
    "gossip",
    "fedavg",
    "dynamic_averaging",
    "server_distillation",
    "co_regularization",
    "local",
    "centralized",
    "distillation",
]
GRAPHS = [
    "complete",
    "star",
    "torus",
    "hypercube",
    "exponential",
    "directed_ring",
    "directed_exponential",
    "erdos_renyi:0.5",
    "watts_strogatz:4:0.3",
    "random_regular:3",
    "barabasi_albert:2",
    "one_peer_exponential",
    "random_matching",
    "fresh_random_regular:3",
    "fresh_erdos_renyi:0.5",
    "alternating:ring+star",
]


def runs() -> Iterator[tuple[str, str, str]]:
    """Name, script and flags of each run."""
    mixings = ("average", "choco", "push_sum", "gossip", "server", "adaptive")
    for consensus, mixing in itertools.product(("gradient", "tracking", "neighbors"), mixings):
        if (consensus, mixing) in {
            ("tracking", "gossip"), ("tracking", "adaptive"), ("neighbors", "choco"), ("neighbors", "push_sum"),
        }:  # fmt: skip
            continue
        yield f"{consensus}-{mixing}", "train", LINEAR + f"--consensus={consensus} --mixing={mixing}"
    for algorithm in ALGORITHMS:
        model = "linear" if algorithm == "co_regularization" else "mlp"
        check = " --check_every=2" if algorithm == "dynamic_averaging" else ""
        yield algorithm, "train", BASE + f"--models={model} --algorithm={algorithm}{check}"
        yield f"regression-{algorithm}", "train", REGRESSION + f"--algorithm={algorithm}{check}"
    for algorithm in ("dsgd", "gossip", "distillation", "fedavg", "choco"):
        yield (
            f"two-places-{algorithm}",
            "train",
            (LINEAR + f"--algorithm={algorithm}").replace("--host_devices=1", "--host_devices=2"),
        )
    for compressor in ("float16", "uint8", "top_classes:3", "top_k:0.2", "random_k:0.2", "qsgd:8", "sign"):
        yield f"distillation-{compressor}", "train", LINEAR + f"--compressor={compressor}"
        if "classes" not in compressor:
            yield f"dsgd-{compressor}", "train", LINEAR + f"--algorithm=dsgd --compressor={compressor}"
    for graph in GRAPHS:
        devices = 8
        flags = LINEAR + f"--devices={devices} --topology={graph} --reference_size=20"
        yield f"distillation-{graph}", "train", flags
        yield f"dsgd-{graph}", "train", f"{flags} --algorithm=dsgd"
    for graph in ("star", "exponential", "one_peer_exponential"):
        flags = LINEAR + f"--devices=70 --topology={graph} --mixing_product=gather --examples_per_device=5"
        for algorithm in ("distillation", "dsgd", "gossip"):
            yield f"gather-{algorithm}-{graph}", "train", f"{flags} --algorithm={algorithm}"
    yield "lazy", "train", LINEAR + "--mixing_weights=lazy_uniform"
    yield "row", "train", LINEAR + "--consensus=neighbors --topology=star --mixing_weights=row_uniform"
    yield "push-sum-star", "train", LINEAR + "--mixing=push_sum --topology=star --mixing_weights=column_uniform"
    yield "mixed", "train", BASE + "--models=linear:2+mlp:2+cnn:2"
    yield "mixed-tracking", "train", BASE + "--models=linear:2+mlp:2+cnn:2 --consensus=tracking --local_epochs=1"
    yield "resnet14", "train", BASE + "--models=resnet14 --devices=2 --rounds=3 --micro_batch=4"
    for divergence in ("kl", "cross_entropy", "jensen_shannon"):
        yield divergence, "train", LINEAR + f"--divergence={divergence} --temperature=2 --distillation_weight=1"
    for schedule in ("inverse_time", "inverse_time:3", "inverse_power:0.5:2", "cosine"):
        flags = f"--learning_rate_schedule={schedule} --consensus_step_size_schedule={schedule}"
        yield f"schedule-{schedule}", "train", LINEAR + flags
    for name, flags in {
        "epochs": "--local_epochs=2 --batch_size=7 --partition=quantity",
        "steps": "--local_steps=3 --optimizer=adam",
        "whole": "--batch_size=0 --reference_batch_size=0 --optimizer=momentum",
        "shards": "--partition=shards",
        "iid": "--partition=iid --activation=relu --eval_examples=50",
        "natural": "--dataset=synthetic_classification --partition=natural",
        "chunk": "--device_chunk=4",
        "fraction": "--algorithm=gossip --message_fraction=0.3",
        "clients": "--algorithm=fedavg --client_fraction=0.5 --local_epochs=1",
        "threshold": "--algorithm=dynamic_averaging --divergence_threshold=0.01 --check_every=1",
        "choco-step": "--algorithm=choco --choco_step_size=0.2 --compressor=top_k:0.2",
        "server_distillation-uint8": "--algorithm=server_distillation --compressor=uint8",
        "npz": "--dataset=data.npz",
        "npz-numbers": "--dataset=numbers.npz --learning_rate=0.01",
        "csv": "--dataset=table.csv --target_column=price --learning_rate=0.01",
        "csv-words": "--dataset=table.csv --target_column=kind",
    }.items():
        yield name, "train", LINEAR + flags
    for form in ("gradient", "tracking", "neighbors"):
        yield f"float64-{form}", "train", REGRESSION + f"--precision=float64 --consensus={form}"
    yield "float64-dsgd", "train", BASE + "--models=mlp --precision=float64 --algorithm=dsgd"
    sweep = LINEAR.replace("--host_devices=1", "") + "--seeds=2"
    yield "sweep", "sweep", sweep + " --algorithm=local,dsgd,distillation --topology=ring,exponential --host_devices=1"
    yield (
        "sweep-zip",
        "sweep",
        sweep
        + (
            " --consensus=gradient,tracking --divergence=kl,cross_entropy --zip=consensus,divergence"
            " --learning_rate=0.01,0.05 --distillation_weight=1,3 --exclude=learning_rate=0.05,consensus=tracking"
            " --host_devices=2"
        ),
    )
    study = "--devices=6 --precision=float64 --seeds=2 --host_devices=1"
    yield "study", "convergence", study + " --topology=ring,directed_ring --consensus=tracking,gradient --rounds=200"
    yield "study-derived", "convergence", study + " --consensus=tracking,neighbors"
    yield "study-averaging", "convergence", study + " --algorithm=dsgd,local,choco --learning_rate=0.01 --rounds=100"
    yield (
        "study-mlp",
        "convergence",
        (
            "--devices=4 --dataset=digits --models=mlp --examples_per_device=20 --learning_rate=0.05 --rounds=30 "
            "--batch_size=16 --reference_batch_size=16 --endpoints=1 --learning_rate_schedule=inverse_power:0.5:10"
        ),
    )


def write_data(folder: Path) -> None:
    """Write the files that some runs read."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (400, 6, 6), dtype=np.uint8), rng.integers(0, 3, 400)
    np.savez(folder / "data.npz", x_train=x[:320], y_train=y[:320], x_test=x[320:], y_test=y[320:])
    x = rng.normal(size=(400, 5))
    y = x @ rng.normal(size=(5, 2))
    np.savez(folder / "numbers.npz", x_train=x[:320], y_train=y[:320], x_test=x[320:], y_test=y[320:])
    lines = ["size,age,kind,price"]
    for size, age in rng.normal(size=(400, 2)):
        kind = "abc"[rng.integers(3)]
        lines.append(f"{size:.4f},{age:.4f},{kind},{3 * size - age + (kind == 'a'):.4f}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


def kept(path: Path) -> str:
    """A table without the columns that depend on the clock or describe the settings."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    out = io.StringIO(newline="")
    names = list(rows[0])
    if path.name == "results.csv":
        names = names[names.index("round") :]
    writer = csv.DictWriter(out, [name for name in names if "second" not in name], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def record(checkout: Path, folder: Path, output: Path, run: tuple[str, str, str]) -> str:
    """Do one run and keep its tables; return what went wrong, if anything did."""
    name, script, flags = run
    target = folder / name.replace(":", "_").replace("+", "_")
    where = "--sweep_dir" if script == "sweep" else "--output_dir"
    command = [sys.executable, str(checkout / "scripts" / f"{script}.py"), *flags.split(), f"{where}={target}"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}  # takes precedence over the installed package
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{name}: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    for table in ("metrics.csv", "links.csv", "results.csv", "convergence.csv"):
        if (target / table).exists():
            (output / f"{target.name}.{table}").write_text(kept(target / table))
    return ""


def main() -> int:
    """Record the numbers, and compare them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    todo = [run for run in runs() if given.only in run[0]]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        write_data(Path(folder))
        checkout, output = given.checkout.absolute(), given.output.absolute()
        failures = [line for line in pool.map(lambda run: record(checkout, Path(folder), output, run), todo) if line]
    print(f"{len(todo)} runs, {len(failures)} failed", *failures, sep="\n")
    if not given.against:
        return bool(failures)
    names = {path.name for side in (given.output, given.against) for path in side.iterdir() if given.only in path.name}
    different = [
        name
        for name in sorted(names)
        if not (given.output / name).exists()
        or not (given.against / name).exists()
        or (given.output / name).read_bytes() != (given.against / name).read_bytes()
    ]
    print(f"{len(names)} tables, {len(different)} differ", *different, sep="\n")
    return bool(failures or different)


if __name__ == "__main__":
    sys.exit(main())
