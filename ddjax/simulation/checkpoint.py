"""Checkpoints of a run, saved by Orbax.

A checkpoint holds the whole state, so that a resumed run gives the same numbers as an uninterrupted run.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddjax import __version__
from ddjax.errors import InputError
from ddjax.simulation.accounting import Bytes
from ddjax.simulation.runner import Evaluation
from ddjax.simulation.simulation import Simulation, Snapshot

_FORMAT = 2  # incremented with each change of the saved arrays


class Checkpoints:
    """Checkpoints of one run; the last two are kept.

    Args:
      directory: folder of the checkpoints; created when the first checkpoint is saved.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    @functools.cached_property
    def _manager(self) -> Any:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self.directory.absolute(), options=options)

    def save(self, snapshot: Snapshot, evaluation: Evaluation) -> None:
        """Save a snapshot and the last evaluation, unless a checkpoint of that round exists."""
        round = int(snapshot.state.round)
        if self._manager.latest_step() == round:
            return
        args = _orbax().args
        progress = {
            "format": _FORMAT,
            "version": __version__,
            "seconds_train": snapshot.seconds_train,
            "shapes": {name: leaf.shape for name, leaf in _named(snapshot).items()},
            "evaluation": evaluation._asdict()
            | {"score": evaluation.score.tolist(), "bytes": evaluation.bytes._asdict()},
        }
        saved = args.Composite(state=args.StandardSave(_named(snapshot)), progress=args.JsonSave(progress))
        self._manager.save(round, args=saved)

    def restore(self, simulation: Simulation) -> tuple[Snapshot, Evaluation]:
        """Load the last snapshot and the last evaluation.

        Raises:
          InputError: if there is no checkpoint, or if the last checkpoint is damaged or comes from another version or
            simulation.
        """
        step = self._manager.latest_step() if self.directory.is_dir() else None
        if step is None:
            raise InputError(
                f"no checkpoint in {str(self.directory)!r}; --checkpoint_every makes a run save checkpoints"
            )
        hook = sys.unraisablehook
        sys.unraisablehook = _without_readers(hook)
        try:
            found = self._restore(step, simulation)
            sys.unraisablehook = hook
            return found
        except InputError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds of errors
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            before = sorted(set(self._manager.all_steps()) - {step})
            remedy = "begin a new run in another --output_dir"
            if before:
                remedy = f"move it away to continue from round {before[-1]}"
            raise InputError(f"{self._name(step)} is damaged ({reason[:120]}); {remedy}") from None

    def _restore(self, step: int, simulation: Simulation) -> tuple[Snapshot, Evaluation]:
        args = _orbax().args
        if (self.directory / str(step) / "evaluation").exists():
            raise InputError(f"{self._name(step)} was written by ddjax 0.2.0 or earlier, and can no longer be read")
        progress = self._manager.restore(step, args=args.Composite(progress=args.JsonRestore())).progress
        if progress["format"] != _FORMAT:
            raise InputError(
                f"{self._name(step)} was written by ddjax {progress['version']}; ddjax {__version__} cannot read it"
            )
        # Counts stay on the host; other arrays are laid out for this mesh, which may differ from the mesh of the saved
        # run.
        counts = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.int64), simulation.shapes.messages)
        whole = jax.tree.map(lambda leaf: leaf.sharding, simulation.zeros())
        state, totals = jax.tree.map(
            lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
            (simulation.shapes.state, simulation.shapes.totals),
            (simulation.layout, whole),
        )
        wanted = Snapshot(state, counts, totals, progress["seconds_train"])
        for name, leaf in _named(wanted).items():
            if (known := progress["shapes"].get(name)) != list(leaf.shape):
                raise InputError(
                    f"{self._name(step)} is from another run: {name} has shape {known}, not {list(leaf.shape)}"
                )
        leaves = args.StandardRestore(_named(wanted))
        restored = self._manager.restore(step, args=args.Composite(state=leaves)).state
        snapshot = jax.tree_util.tree_map_with_path(
            lambda path, leaf: restored.get(jax.tree_util.keystr(path), leaf), wanted
        )
        last = progress["evaluation"]
        return snapshot, Evaluation(**last | {"score": np.array(last["score"]), "bytes": _bytes(last["bytes"])})

    def _name(self, step: int) -> str:
        return f"checkpoint {str(self.directory / str(step))!r}"


def _named(snapshot: Snapshot) -> dict[str, Any]:
    """Map the path of each array in a snapshot to the array."""
    leaves = jax.tree_util.tree_leaves_with_path(snapshot)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if not isinstance(leaf, float)}


def _without_readers(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a hook that drops the reports of readers that fail because another reader has failed."""

    def filtered(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            hook(found)

    return filtered


def _bytes(saved: dict[str, Any]) -> Bytes:
    return Bytes(**saved | {name: tuple(saved[name]) for name in ("sent", "received")})


def _orbax() -> Any:
    import orbax.checkpoint  # slow to import, and not every run saves checkpoints

    return orbax.checkpoint
