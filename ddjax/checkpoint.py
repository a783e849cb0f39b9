"""Checkpoints of a run, by Orbax: the whole state, so that a resumed run gives the numbers of an undisturbed one."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddjax.simulate import Evaluation
from ddjax.types import Algorithm, InputError, Problem


class Checkpoints:
    """The checkpoints of one run, the last two kept.

    Args:
      directory: where they lie; made when the first is saved.
    """

    def __init__(self, directory: Path):
        import orbax.checkpoint as ocp  # slow to import, and not every run saves

        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            directory.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        )

    def save(self, state: Any, evaluation: Evaluation) -> None:
        """Saves a state and the evaluation made of it."""
        progress = evaluation._asdict() | {"accuracy": evaluation.accuracy.tolist()}
        leaves = dict(enumerate(jax.tree.leaves(state)))
        self._manager.save(
            evaluation.round,
            args=self._ocp.args.Composite(
                state=self._ocp.args.StandardSave({str(i): leaf for i, leaf in leaves.items()}),
                evaluation=self._ocp.args.JsonSave(progress),
            ),
        )

    def restore(self, algorithm: Algorithm, problem: Problem) -> tuple[Any, Evaluation]:
        """The last state and its evaluation.

        Raises:
          InputError: there is no checkpoint.
        """
        step = self._manager.latest_step()
        if step is None:
            raise InputError(f"no checkpoint in {self._manager.directory}; run with --checkpoint_every")
        shapes, structure = jax.tree.flatten(jax.eval_shape(algorithm.init, jax.random.key(0), problem))
        restored = self._manager.restore(
            step,
            args=self._ocp.args.Composite(
                state=self._ocp.args.StandardRestore({str(i): shape for i, shape in enumerate(shapes)}),
                evaluation=self._ocp.args.JsonRestore(),
            ),
        )
        state = jax.tree.unflatten(structure, [restored.state[str(i)] for i in range(len(shapes))])
        progress = restored.evaluation
        evaluation = Evaluation(
            **progress | {"accuracy": np.array(progress["accuracy"]), "bytes_sent": tuple(progress["bytes_sent"])}
        )
        return state, evaluation
