"""Execution settings that commands share: cores, accelerators, processes, precision and the compilation cache."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ddjax import forms, sharding
from ddjax.errors import InputError, suggest
from ddjax.experiments.settings import Settings

# Precisions of matrix products. With float64, all other operations have that precision too.
PRECISIONS = ("float32", "tf32", "bfloat16", "float64")


def start(settings: Settings) -> None:
    """Configure JAX in a command's process before anything is computed: cores, processes, precision and cache.

    Raises:
      InputError: a setting is wrong, or this backend does not support it.
    """
    check_precision(settings)
    address, processes, process = settings.coordinator_address, settings.num_processes, settings.process_id
    if address in ("", "auto") and (processes, process) != (0, -1):
        raise InputError("--num_processes and --process_id need --coordinator_address=HOST:PORT")
    if address not in ("", "auto") and (":" not in address or not 0 <= process < processes):
        raise InputError(
            "--coordinator_address=HOST:PORT needs --num_processes=P and --process_id from 0 to P - 1, got "
            f"{address}, {processes} and {process}"
        )
    _cache()
    _patience()
    _host_devices(settings.host_devices or cores())
    if address:
        _join(address, processes, process)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX cannot run with JAX_PLATFORMS={asked!r}: {str(error) or 'there is no such backend here'}"
        ) from None
    check_backend(settings)
    jax.config.update("jax_default_matmul_precision", _matmul_precision(settings))
    jax.config.update("jax_enable_x64", settings.precision == "float64")
    if jax.process_index():
        silence()


def check_precision(settings: Settings) -> None:
    """Raise `InputError` if the precision is unknown."""
    if settings.precision not in PRECISIONS:
        raise suggest("precision", settings.precision, PRECISIONS)


def _matmul_precision(settings: Settings) -> str:
    return forms.matmul_precision(sharding.platform(), settings.precision)


@contextlib.contextmanager
def precision(settings: Settings) -> Iterator[None]:
    """Set the precision of an experiment in this thread while the context lasts."""
    check_precision(settings)
    with jax.default_matmul_precision(_matmul_precision(settings)), jax.enable_x64(settings.precision == "float64"):
        yield


def check_backend(settings: Settings) -> None:
    """Raise `InputError` if this backend does not support the precision."""
    if settings.precision in ("tf32", "bfloat16") and jax.default_backend() == "cpu":
        raise InputError(
            f"precision {settings.precision!r} is only available on GPUs and TPUs; a CPU supports float32 and float64"
        )


def _join(address: str, processes: int, process: int) -> None:
    if process > 0:
        silence()
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM, which the commands handle
    try:
        if address == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(address, processes, process)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"cannot join the processes of --coordinator_address={address}: {error}") from None


def silence() -> None:
    """Silence stdout until the process ends, including output of libraries; errors still go to stderr."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cache() -> None:
    """Store compiled programs in the user's cache folder if possible, unless JAX already has a cache folder."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    with contextlib.suppress(OSError, RuntimeError):  # there is no home folder, or it is not writable
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ddjax"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _patience() -> None:
    """Let cores wait an hour for each other; XLA's default of 40 s is too short for a busy or suspended machine."""
    if jax.__version_info__ >= (0, 12):  # XLA no longer has these flags, and aborts if a flag is unknown
        return
    flags = os.environ.get("XLA_FLAGS", "")
    for name in ("xla_cpu_collective_call_terminate_timeout_seconds", "xla_cpu_collective_timeout_seconds"):
        if name not in flags:
            flags += f" --{name}=3600"
    os.environ["XLA_FLAGS"] = flags.strip()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _host_devices(count: int) -> None:
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # the backend is running already, as in a notebook
        jax.config.update("jax_num_cpu_devices", count)


def environment() -> dict[str, Any]:
    """Return the backend, the accelerators and the number of processes, for the records of a run."""
    return {
        "backend": jax.default_backend(),
        "accelerators": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }
