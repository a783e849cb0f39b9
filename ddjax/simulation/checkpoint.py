"""Checkpoints of a run, by Orbax: the whole state, so that a resumed run gives the numbers of an undisturbed one."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddjax.errors import InputError
from ddjax.simulation.accounting import Bytes
from ddjax.simulation.runner import Evaluation
from ddjax.simulation.simulation import Simulation, Snapshot


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
        """Saves a snapshot and the evaluation made of it; does nothing where that round is saved already."""
        if self._manager.latest_step() == evaluation.round:
            return
        args = _orbax().args
        leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(snapshot)}
        progress = evaluation._asdict() | {
            "score": evaluation.score.tolist(),
            "bytes": evaluation.bytes._asdict(),
        }
        saved = args.Composite(state=args.StandardSave(leaves), evaluation=args.JsonSave(progress))
        self._manager.save(evaluation.round, args=saved)

    def restore(self, simulation: Simulation) -> tuple[Snapshot, Evaluation]:
        """The last snapshot and its evaluation.

        Raises:
          InputError: there is no checkpoint, or the last one cannot be read.
        """
        step = self._manager.latest_step() if self.directory.is_dir() else None
        if step is None:
            raise InputError(f"no checkpoint in {str(self.directory)!r}; a run leaves them with --checkpoint_every")
        args = _orbax().args
        # On the host, as they were.
        counts = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.int64), simulation.shapes.messages)
        # To where it belongs, which need not be where it was saved.
        state = jax.tree.map(
            lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
            simulation.shapes.state,
            simulation.layout,
        )
        shapes, structure = jax.tree_util.tree_flatten_with_path(Snapshot(state, counts))
        leaves = args.StandardRestore({jax.tree_util.keystr(path): shape for path, shape in shapes})
        try:
            restored = self._manager.restore(step, args=args.Composite(state=leaves, evaluation=args.JsonRestore()))
            leaves = [restored.state[jax.tree_util.keystr(path)] for path, _ in shapes]
            progress = restored.evaluation
            lists = {"score": np.array(progress["score"]), "bytes": _bytes(progress["bytes"])}
            return jax.tree.unflatten(structure, leaves), Evaluation(**progress | lists)
        except Exception as error:  # Orbax and TensorStore raise many kinds on damaged files
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"checkpoint {str(self.directory / str(step))!r} cannot be read ({reason[:200]}); "
                "remove it to go on from the one before"
            ) from None


def _bytes(saved: dict[str, Any]) -> Bytes:
    return Bytes(**saved | {name: tuple(saved[name]) for name in ("sent", "received")})


def _orbax() -> Any:
    import orbax.checkpoint  # slow to import, and not every run saves

    return orbax.checkpoint
