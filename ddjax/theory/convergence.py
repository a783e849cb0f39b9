"""Exact measures of quantities in convergence theory: joint objective, full-batch gradients and consensus errors."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddjax.errors import InputError
from ddjax.learning import Population, infer_task
from ddjax.types import Device, Mixer, MixerState, Problem, PyTree


class Quantities(NamedTuple):
    """Measures after one round, where `z̄` is the average soft decision and `θ̄` the average of the parameters.

    Attributes:
      objective: `[]`. For distillation, the mean over devices of `L_n(θ_n; z̄)`; with the squared distance as
        divergence, the gradient of this objective in `θ_n` is `∇L_n(θ_n; z̄) / N`. For averaging, the mean private loss
        `F(θ̄)`. For devices that learn alone, their mean private loss.
      gradient_norm_sq: `[N]`. For distillation, `‖∇L_n(θ_n; z̄)‖²`, which, according to the paper, vanishes. For
        averaging, `‖∇F(θ̄)‖²`, the same for all devices. For devices that learn alone, the squared gradient norm of
        their private loss.
      own_gradient_norm_sq: `[N]`. For distillation, `‖∇L_n(θ_n; z_n)‖²` at the device's own target, which is clipped to
        the range of soft decisions, as in training. Otherwise, the squared gradient norm of the private loss at `θ_n`,
        which need not vanish under averaging.
      consensus_error: `[N]`. For distillation, the mean over the reference set of `‖z_n − z̄‖²`; otherwise `‖θ_n −
        θ̄‖²`.
    """

    objective: jax.Array
    gradient_norm_sq: jax.Array
    own_gradient_norm_sq: jax.Array
    consensus_error: jax.Array


def measure_distillation(
    population: Population, state: Any, problem: Problem, mixer: Mixer | None = None
) -> Quantities:
    """Measure the convergence quantities of a state of `distillation` or `server_distillation`.

    Args:
      population: the devices, as the run trained them.
      state: state after any round.
      problem: problem from which the devices learn.
      mixer: mixer without memory, only for consensus `neighbors`. That form keeps no targets `z_n`, so the mixer
        computes them by mixing the soft decisions. If `mixer` is `None`, quantities that depend on `z_n` are NaN for
        `neighbors`.

    Returns:
      The `Quantities` of the state.

    Raises:
      InputError: if some devices do not know the whole reference set.

    Examples:
      >>> algorithm = ddjax.distillation(population, ddjax.weighted_average(), reference_batch_size=50)
      >>> state = algorithm.init(jax.random.key(0), problem)
      >>> convergence.measure_distillation(population, state, problem).gradient_norm_sq.shape
      (4,)
    """
    if problem.known is not None:
        raise InputError(
            "convergence can be measured only if all devices know the whole reference set; leave out --reference_known"
        )
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
    """Measure a state of `dsgd`, or of another algorithm that averages parameters.

    Examples:
      >>> algorithm = ddjax.dsgd(population, ddjax.weighted_average())
      >>> state = algorithm.init(jax.random.key(0), problem)  # all devices start alike
      >>> convergence.measure_averaging(population, state, problem).consensus_error.tolist()
      [0.0, 0.0, 0.0, 0.0]
    """
    (devices,) = state.devices
    mean = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.mean(0), leaf.shape), devices.params)
    values, common = gradients(population, (devices._replace(params=mean),), problem)
    _, separate = gradients(population, state.devices, problem)
    together = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.mean(0), leaf.shape), common)
    error = _norms((jax.tree.map(jnp.subtract, devices.params, mean),))
    return Quantities(values.mean(), _norms(together), _norms(separate), error)


def measure_separate(population: Population, state: Any, problem: Problem) -> Quantities:
    """Measure a state of `local` or `centralized`, for which the consensus error is NaN.

    Examples:
      >>> state = ddjax.local(population).init(jax.random.key(0), problem)
      >>> found = convergence.measure_separate(population, state, problem)
      >>> found.gradient_norm_sq.shape, bool(np.isnan(found.consensus_error).all())
      ((4,), True)
    """
    values, separate = gradients(population, state.devices, problem)
    norms, nothing = _norms(separate), jnp.full(population.size, jnp.nan)
    return Quantities(values.mean(), norms, norms, nothing)


def gradients(
    population: Population, devices: tuple[Device, ...], problem: Problem, targets: jax.Array | None = None
) -> tuple[jax.Array, tuple[PyTree, ...]]:
    """Compute the loss and the gradient of each device on all of its private data and all reference data.

    Args:
      population: the devices, as the run trained them.
      devices: one stacked `Device` per group.
      problem: problem from which the devices learn.
      targets: `[N, R, K]`, each device's targets on the reference set; `None` for the private loss alone.

    Returns:
      Losses `[N]`, and one stacked gradient per group.

    Examples:
      >>> devices = population.init(jax.random.key(0))
      >>> losses, (found,) = convergence.gradients(population, devices, problem)
      >>> losses.shape, found["dense"]["kernel"].shape
      ((4,), (4, 1, 3))
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
    """Compute squared norms `[N]` of stacked pytrees, one per group."""

    def of(group: PyTree) -> jax.Array:
        return sum((leaf**2).reshape(len(leaf), -1).sum(1) for leaf in jax.tree.leaves(group))

    return jnp.concatenate([of(group) for group in stacked])


def counted(problem: Problem) -> jax.Array:
    """Mark the entries of `private_indices`, `[N, n_max]`: 1 if an entry is a row number, 0 if it is padding.

    Examples:
      >>> bool((convergence.counted(problem).sum(1) == problem.private_counts).all())
      True
    """
    return (jnp.arange(problem.private_indices.shape[1]) < problem.private_counts[:, None]).astype(problem.x.dtype)


def coefficients(devices: tuple[Device, ...]) -> jax.Array:
    """Return the coefficients `[N, P + 1, K]` of linear devices; the last row is the bias.

    Examples:
      >>> convergence.coefficients(population.init(jax.random.key(0))).shape
      (4, 4, 1)
    """
    layers = [device.params["dense"] for device in devices]
    parts = [jnp.concatenate([layer["kernel"], layer["bias"][..., None]], axis=-1) for layer in layers]
    return jnp.concatenate(parts).swapaxes(1, 2)
