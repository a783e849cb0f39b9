"""Checkpoints of a run, by Orbax: the whole state, so that a resumed run gives the numbers of an undisturbed one."""

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

_FORMAT = 2  # raised with each change of what is saved


class Checkpoints:
    """The checkpoints of one run, the last two kept.

    Args:
      directory: where they lie; made when the first is saved.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    @functools.cached_property
    def _manager(self) -> Any:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self.directory.absolute(), options=options)

    def save(self, snapshot: Snapshot, evaluation: Evaluation) -> None:
        """Saves a snapshot and the last evaluation; does nothing where that round is saved already."""
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
        """The last snapshot and the last evaluation.

        Raises:
          InputError: there is no checkpoint, or the last one cannot be read, or is of another version or simulation.
        """
        step = self._manager.latest_step() if self.directory.is_dir() else None
        if step is None:
            raise InputError(f"no checkpoint in {str(self.directory)!r}; a run leaves them with --checkpoint_every")
        hook = sys.unraisablehook
        sys.unraisablehook = _without_readers(hook)
        try:
            found = self._restore(step, simulation)
            sys.unraisablehook = hook
            return found
        except InputError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds on damaged files
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            before = sorted(set(self._manager.all_steps()) - {step})
            remedy = "begin a new run in another --output_dir"
            if before:
                remedy = f"move it away to go on from round {before[-1]}"
            raise InputError(f"{self._name(step)} is damaged ({reason[:120]}); {remedy}") from None

    def _restore(self, step: int, simulation: Simulation) -> tuple[Snapshot, Evaluation]:
        args = _orbax().args
        if (self.directory / str(step) / "evaluation").exists():
            raise InputError(f"{self._name(step)} was written by ddjax 0.2.0 or before, and cannot be read any more")
        progress = self._manager.restore(step, args=args.Composite(progress=args.JsonRestore())).progress
        if progress["format"] != _FORMAT:
            raise InputError(
                f"{self._name(step)} was written by ddjax {progress['version']}, and {__version__} cannot read it"
            )
        # Counts stay on the host; the rest goes to where it belongs, which need not be where it was saved.
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
                    f"{self._name(step)} is of another run: {name} has the shape {known} and not {list(leaf.shape)}"
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
    """The arrays of a snapshot by their paths in it."""
    leaves = jax.tree_util.tree_leaves_with_path(snapshot)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if not isinstance(leaf, float)}


def _without_readers(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook that leaves out the readers which still report after another one has failed."""

    def filtered(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            hook(found)

    return filtered


def _bytes(saved: dict[str, Any]) -> Bytes:
    return Bytes(**saved | {name: tuple(saved[name]) for name in ("sent", "received")})


def _orbax() -> Any:
    import orbax.checkpoint  # slow to import, and not every run saves

    return orbax.checkpoint
