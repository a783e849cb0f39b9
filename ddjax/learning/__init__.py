"""Learning: the loss that one device minimizes, and stacked devices that learn from their own examples."""

from ddjax.learning.draws import RoundKeys, draw, round_keys
from ddjax.learning.group import Group, chunk_for
from ddjax.learning.losses import DIVERGENCES
from ddjax.learning.optimizers import OPTIMIZERS
from ddjax.learning.population import Phase, Population, single_group
from ddjax.learning.step_size import stable_step_size
from ddjax.learning.supervised import LEAST_TEMPERATURE, supervised_learner
from ddjax.learning.tasks import CLASSIFICATION, REGRESSION, TASKS, Task, infer_task

__all__ = [
    "CLASSIFICATION",
    "DIVERGENCES",
    "LEAST_TEMPERATURE",
    "OPTIMIZERS",
    "REGRESSION",
    "TASKS",
    "Group",
    "Phase",
    "Population",
    "RoundKeys",
    "Task",
    "chunk_for",
    "draw",
    "infer_task",
    "round_keys",
    "single_group",
    "stable_step_size",
    "supervised_learner",
]
