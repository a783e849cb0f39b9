"""Where and how scripts run: cores, accelerators and processes, precision, and the cache of compiled programs."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags

from ddjax.errors import InputError, suggest

# In which JAX is told to multiply; float64 is of everything else too.
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16", "float64": "highest"}

# Flag → (default, help), as a section of `options.define`.
SECTION: dict[str, tuple] = {
    "device_chunk": (0, "Devices vectorized at a time in one place; 0 picks for the model and backend."),
    "mixing_product": (
        "",
        "How W is multiplied by: dense, as a matrix, or gather, link by link; default the quicker one.",
    ),
    "convolution": (
        "",
        "products, made of matrix products, or native, the backend's own; default products on CPU, else native.",
    ),
    "micro_batch": (0, "Examples that go forward and backward at a time; 0 picks for the model and backend."),
    "precision": (
        "float32",
        "Of products in training: float32, tf32 or bfloat16, with consensus in float32; or float64, of everything.",
    ),
    "host_devices": (0, "On a CPU, places that the devices are spread over; 0 for as many as cores."),
    "coordinator_address": (
        "",
        "host:port of process 0, where several run as one; auto where JAX finds it by itself (Slurm, Open MPI, …).",
    ),
    "num_processes": (0, "How many processes run as one."),
    "process_id": (-1, "Which of them this is, from 0; process 0 writes the files, the others are silent."),
}


def start(values: flags.FlagValues) -> None:
    """Prepares JAX as the flags say; to be called before anything is computed.

    Raises:
      InputError: flags that are wrong, or not for this backend.
    """
    precision = matmul_precision(values)
    for name in ("host_devices", "device_chunk", "micro_batch"):
        if not 0 <= getattr(values, name) < 2**31:
            raise InputError(f"{name} must be at least 0, got {getattr(values, name)}")
    if values.coordinator_address in ("", "auto") and (values.num_processes, values.process_id) != (0, -1):
        raise InputError("--num_processes and --process_id go with --coordinator_address=HOST:PORT")
    named = values.coordinator_address not in ("", "auto")
    if named and (":" not in values.coordinator_address or not 0 <= values.process_id < values.num_processes):
        raise InputError(
            "--coordinator_address=HOST:PORT needs --num_processes=P and --process_id from 0 to P - 1, got "
            f"{values.coordinator_address}, {values.num_processes} and {values.process_id}"
        )
    _cache()
    _host_devices(values.host_devices or _cores())
    if values.coordinator_address:
        _join(values.coordinator_address, values.num_processes, values.process_id)
    check_backend(values)
    jax.config.update("jax_default_matmul_precision", precision)
    jax.config.update("jax_enable_x64", values.precision == "float64")
    if jax.process_index():
        _silence()


def matmul_precision(values: flags.FlagValues) -> str:
    """JAX's name of `--precision`."""
    if values.precision not in PRECISIONS:
        raise suggest("precision", values.precision, PRECISIONS)
    return PRECISIONS[values.precision]


def check_backend(values: flags.FlagValues) -> None:
    """Raises `InputError` for flags that this backend has no use for."""
    if values.precision in ("tf32", "bfloat16") and jax.default_backend() == "cpu":
        raise InputError(f"precision {values.precision!r} is of GPUs and TPUs; a CPU has float32 and float64")


def _join(address: str, processes: int, process: int) -> None:
    if process > 0:
        _silence()
    try:
        if address == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(address, processes, process)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"cannot join other processes by --coordinator_address={address}: {error}") from None


def _silence() -> None:
    """Nothing more on stdout, from libraries neither; errors are still told."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cache() -> None:
    """Compiled programs are kept in the user's cache folder, unless JAX was told of another place."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(home / "ddjax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _host_devices(count: int) -> None:
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # the backend runs already, as in a notebook
        jax.config.update("jax_num_cpu_devices", count)


def settings() -> dict[str, Any]:
    """Where a program runs, for its records."""
    return {
        "backend": jax.default_backend(),
        "accelerators": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }
