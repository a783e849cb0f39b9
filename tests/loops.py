"""Parts of plain loops over devices in NumPy, which read like the papers' pseudocode."""

import jax
import numpy as np
from small import BATCH, CLASSES, RATE, REFERENCE_BATCH, WEIGHT

from ddjax.learning import draw, round_keys


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Drawn:
    """The random draws of a round, by the documented rule, for both sides of a comparison."""

    def __init__(self, round_key, problem, local_steps=1, reference_batch_size=REFERENCE_BATCH):
        keys = round_keys(round_key)
        self.reference = np.asarray(draw(keys.reference, problem.reference.shape[0], reference_batch_size))
        self.private = []
        for n, size in enumerate(np.asarray(problem.private_counts)):
            per_step = []
            for number in range(local_steps):
                key = jax.random.fold_in(jax.random.fold_in(keys.train, n), number)
                drawn = jax.random.randint(jax.random.split(key)[0], (BATCH,), 0, size)
                per_step.append(np.asarray(problem.private_indices)[n, np.asarray(drawn)])
            self.private.append(per_step)


def numpy_step(kernel, bias, x, y, reference, target):
    """One SGD step of softmax regression on the distillation-regularized loss, by hand."""
    error = (softmax(x @ kernel.T + bias) - np.eye(CLASSES)[y]) / len(x)
    grad_kernel, grad_bias = error.T @ x, error.sum(0)
    s = softmax(reference @ kernel.T + bias)
    if target is not None:
        pull = 2 * (s - target)
        # The derivative of softmax: (diag(s) − s sᵀ) applied to the pull of the squared distance.
        error = WEIGHT * s * (pull - (s * pull).sum(-1, keepdims=True)) / len(reference)
        grad_kernel, grad_bias = grad_kernel + error.T @ reference, grad_bias + error.sum(0)
    return kernel - RATE * grad_kernel, bias - RATE * grad_bias, s


def with_bias(x):
    return np.hstack([x, np.ones((len(x), 1))])


def local_pair(params):
    """Kernel and bias of one linear model, in double precision."""
    return np.asarray(params["dense"]["kernel"], float), np.asarray(params["dense"]["bias"], float)
