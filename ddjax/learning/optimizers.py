"""Optimizers by name."""

import inspect

import optax

from ddjax.registry import Entry, Registry

# Each of these needs function values, gives every device the same noise, or accepts no schedule.
_UNUSABLE = {"lbfgs", "noisy_sgd", "optimistic_adam", "rprop", "sm3"}


# Optimizers of Optax whose first argument is a learning rate, under their Optax names; and `momentum`, which is SGD
# with momentum 0.9.
OPTIMIZERS: Registry[Entry] = Registry("optimizer")
OPTIMIZERS.add(Entry("momentum", lambda learning_rate: optax.sgd(learning_rate, momentum=0.9)))

for _name, _factory in vars(optax).items():
    if not inspect.isfunction(_factory) or _name.startswith(("_", "scale_by")) or _name in _UNUSABLE:
        continue
    if next(iter(inspect.signature(_factory).parameters), None) == "learning_rate":
        OPTIMIZERS.add(Entry(_name, _factory))
