"""What convergence theory speaks of, measured exactly: the joint objective, full-batch gradients, consensus errors."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddjax.errors import InputError
from ddjax.learning import Population, infer_task
from ddjax.types import Device, Mixer, MixerState, Problem, PyTree


class Quantities(NamedTuple):
    """What is measured in one round. `z̄` is the average soft decision, `θ̄` the average of parameters.

    Attributes:
      objective: `[]` of distillation the mean over devices of `L_n(θ_n; z̄)`, whose gradient in `θ_n` is, for the
        squared distance, `∇L_n(θ_n; z̄) / N`; of averaging `F(θ̄)`, the mean private loss there; of devices alone their
        mean private loss.
      gradient_norm_sq: `[N]` of distillation `‖∇L_n(θ_n; z̄)‖²`, which the paper claims to vanish; of averaging
        `‖∇F(θ̄)‖²`, the same for all; of devices alone that of the private loss.
      own_gradient_norm_sq: `[N]` of distillation at the device's own target as training takes it, clipped to the range
        of soft decisions, `‖∇L_n(θ_n; z_n)‖²`; else that of the private loss at `θ_n`, which averaging does not make
        vanish.
      consensus_error: `[N]` of distillation the mean over the reference set of `‖z_n − z̄‖²`, else `‖θ_n − θ̄‖²`.
    """

    objective: jax.Array
    gradient_norm_sq: jax.Array
    own_gradient_norm_sq: jax.Array
    consensus_error: jax.Array


def measure_distillation(
    population: Population, state: Any, problem: Problem, mixer: Mixer | None = None
) -> Quantities:
    """Measures a state of `distillation` or `server_distillation`.

    Args:
      population: the devices' population.
      state: after any round.
      problem: the data.
      mixer: without memory, of `neighbors`, which keeps no `z_n`: they are what it makes of the soft decisions. With
        `None` what depends on them is NaN there.

    Raises:
      InputError: devices that do not know the whole reference set.
    """
    if problem.known is not None:
        raise InputError("convergence is measured of devices that know the whole reference set, unlike these")
    s = population.predict(state.devices, problem.reference[:])
    mean, own = s.mean(0), state.estimate
    if own is None:
        own = jnp.full_like(s, jnp.nan)
        if mixer is not None:
            key = jax.random.key(0)
            own = mixer.mix(key, s, MixerState(), problem.network.at_round(key, state.round))[0]
    values, common = gradients(population, state.devices, problem, jnp.broadcast_to(mean, s.shape))
    _, separate = gradients(population, state.devices, problem, jnp.clip(own, *infer_task(problem.y).bounds))
    error = ((own - mean) ** 2).sum(-1).mean(-1)
    return Quantities(values.mean(), _norms(common), _norms(separate), error)


def measure_averaging(population: Population, state: Any, problem: Problem) -> Quantities:
    """Measures a state of `dsgd` or another algorithm that brings parameters together."""
    (devices,) = state.devices
    mean = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.mean(0), leaf.shape), devices.params)
    values, common = gradients(population, (devices._replace(params=mean),), problem)
    _, separate = gradients(population, state.devices, problem)
    together = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.mean(0), leaf.shape), common)
    error = _norms((jax.tree.map(jnp.subtract, devices.params, mean),))
    return Quantities(values.mean(), _norms(together), _norms(separate), error)


def measure_separate(population: Population, state: Any, problem: Problem) -> Quantities:
    """Measures a state of `local` or `centralized`. There is no consensus, so its error is NaN."""
    values, separate = gradients(population, state.devices, problem)
    norms, nothing = _norms(separate), jnp.full(population.size, jnp.nan)
    return Quantities(values.mean(), norms, norms, nothing)


def gradients(
    population: Population, devices: tuple[Device, ...], problem: Problem, targets: jax.Array | None = None
) -> tuple[jax.Array, tuple[PyTree, ...]]:
    """Each device's loss and gradient on all its private and all reference data.

    Args:
      population: the devices' population.
      devices: a stacked `Device` a group.
      problem: the data.
      targets: `[N, R, K]`; `None` for the private loss alone.

    Returns:
      `[N]` losses, and a stacked gradient a group.
    """

    def one(
        learner: Any, shared: PyTree, nothing: tuple, device: Device, held: jax.Array, counted: jax.Array, target: Any
    ):
        x, y, reference = shared
        batch = x[held], y[held], counted, (y[held], counted)
        return nothing, jax.value_and_grad(learner.objective)(device.params, batch, reference, target)

    reference = None if targets is None else problem.reference[:]
    shared = problem.x, problem.y, reference
    weights = counted(problem)
    values, found, start = [], [], 0
    for group, stacked in zip(population.groups, devices, strict=True):
        members = slice(start, start + group.size)
        start += group.size
        target = None if targets is None else targets[members]
        arguments = stacked, problem.private_indices[members], weights[members], target
        _, (value, gradient) = group.map(partial(one, group.learner), shared, (), *arguments)
        values.append(value)
        found.append(gradient)
    return jnp.concatenate(values), tuple(found)


def _norms(stacked: tuple[PyTree, ...]) -> jax.Array:
    """`[N]` squared norms of stacked pytrees, a group each."""

    def of(group: PyTree) -> jax.Array:
        return sum((leaf**2).reshape(len(leaf), -1).sum(1) for leaf in jax.tree.leaves(group))

    return jnp.concatenate([of(group) for group in stacked])


def counted(problem: Problem) -> jax.Array:
    """`[N, n_max]`, 1 where an entry of `private_indices` counts, else 0."""
    return (jnp.arange(problem.private_indices.shape[1]) < problem.private_counts[:, None]).astype(problem.x.dtype)


def coefficients(devices: tuple[Device, ...]) -> jax.Array:
    """`[N, P + 1, K]` of linear devices, the last row the bias."""
    layers = [device.params["dense"] for device in devices]
    parts = [jnp.concatenate([layer["kernel"], layer["bias"][..., None]], axis=-1) for layer in layers]
    return jnp.concatenate(parts).swapaxes(1, 2)
