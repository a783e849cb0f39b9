"""Step size that the curvature of squared losses allows."""

import jax
import jax.numpy as jnp

from ddjax.types import Learner, Problem

# Upper limits on the number of entries of the Jacobian, and on the number of examples.
_ENTRIES, _EXAMPLES = 2**25, 256


def stable_step_size(
    learner: Learner, problem: Problem, distillation_weight: float, batch_size: int, reference_batch_size: int
) -> float:
    """Estimate, for squared losses and distances, half the largest stable step size of SGD at the start of training.

    `J_i` are the Jacobians of the outputs at the initial parameters, `λ` is the largest eigenvalue of `mean_i J_iᵀJ_i`,
    and `R² = Σ‖J_i‖⁴ / Σ‖J_i‖²`. With minibatches of `B` private and `b` reference examples, step sizes are stable up
    to about `1 / (λ + R²/B + 4 ρ (λ + R²/b))` (Défossez and Bach, AISTATS 2015). The factor 4 allows for targets that
    follow the soft decisions: with `z ← W z + ζ (s − z)`, the largest stable `ρ` is the one for fixed targets times
    `1 − ζ / (1 + λ_min(W))`. This factor is at least a quarter for the usual `ζ`. For linear models, the limit on the
    step size is exact except for `R²`; for other models, the curvature changes during training.

    Args:
      learner: learner of a model that predicts numbers.
      problem: problem; evenly spaced rows of its private and reference inputs are used.
      distillation_weight: `ρ`.
      batch_size: `B`; 0 for all examples.
      reference_batch_size: `b`; 0 for all examples.

    Returns:
      The step size.

    Examples:
      >>> numbers = ddjax.load_dataset("synthetic_regression", devices=8)
      >>> regression = ddjax.make_problem(numbers, topology.network)
      >>> linear = ddjax.build_model("linear", regression.x.shape[1:], numbers.outputs)
      >>> predictor = ddjax.supervised_learner(linear, optax.sgd(0.1), task=REGRESSION)
      >>> isolated, pulled = (stable_step_size(predictor, regression, weight, 16, 64) for weight in (0.0, 1.0))
      >>> pulled < isolated
      True
    """
    params = learner.init(jax.random.key(0)).params
    outputs = problem.y.shape[1]
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    count = max(4, min(_EXAMPLES, _ENTRIES // (size * outputs)))
    inputs = jnp.concatenate([rows[:: max(1, 2 * len(rows) // count)] for rows in (problem.x, problem.reference)])

    @jax.jit
    def curvature(params, inputs):
        def jacobian(x):
            found = jax.jacrev(lambda params: learner.predict(learner.restart(params), x[None])[0])(params)
            return jnp.concatenate([leaf.reshape(outputs, -1) for leaf in jax.tree.leaves(found)], axis=1)

        rows = jax.vmap(jacobian)(inputs)
        norms = jnp.sum(rows**2, axis=(1, 2))
        flat = rows.reshape(-1, rows.shape[-1])
        return jnp.linalg.eigvalsh(flat @ flat.T)[-1] / len(inputs), jnp.sum(norms**2) / jnp.sum(norms)

    largest, spread = (float(value) for value in curvature(params, inputs))
    noise = (spread / batch if batch else 0.0 for batch in (batch_size, reference_batch_size))
    private, public = (largest + part for part in noise)
    return 0.5 / (private + 4 * distillation_weight * public)
