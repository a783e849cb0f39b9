"""Private losses, and divergences between the soft decision `s` of a device and its target `z`.

A divergence between class probabilities is a function `(log_s [b, K], z [b, K]) → [b]`. It takes `log s`, which stays
exact if `s` underflows. The gradient treats targets as constants. Targets need not sum to one; for example, a
`tracking` target is clipped to [0, 1].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from ddjax.registry import Entry, Registry

Divergence = Callable[[jax.Array, jax.Array], jax.Array]


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Compute `−log softmax(logits)[label]`, `[B, K], [B] → [B]`."""
    # The label is chosen by a mask, because the derivative of an indexed read is a scatter, which is slow on a CPU.
    chosen = labels[:, None] == jnp.arange(logits.shape[-1])
    return -jnp.where(chosen, jax.nn.log_softmax(logits), 0).sum(-1)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Compute `‖f − y‖²`, `[…, B, K], [B, K] → […, B]`; it is also the divergence between predicted numbers."""
    return jnp.sum((outputs - targets) ** 2, axis=-1)


def squared_euclidean(log_s: jax.Array, z: jax.Array) -> jax.Array:
    """Compute `‖s − z‖²`, the divergence of the paper."""
    return jnp.sum((jnp.exp(log_s) - z) ** 2, axis=-1)


def kl(log_s: jax.Array, z: jax.Array) -> jax.Array:
    """Compute `KL(z ‖ s) = Σ z log(z / s)`, in nats.

    Knowledge distillation uses this direction of the divergence (Hinton, Vinyals, Dean 2015).
    """
    return jnp.sum(xlogy(z, z) - z * log_s, axis=-1)


def cross_entropy(log_s: jax.Array, z: jax.Array) -> jax.Array:
    """Compute `−Σ z log s`, in nats: `kl` plus the entropy of `z`, so both have the same gradient in `s`."""
    return -jnp.sum(z * log_s, axis=-1)


def jensen_shannon(log_s: jax.Array, z: jax.Array) -> jax.Array:
    """Compute `½ KL(s ‖ m) + ½ KL(z ‖ m)` with `m = (s + z) / 2`, in nats (Lin 1991).

    This divergence is at most `log 2` on the simplex.
    """
    s = jnp.exp(log_s)
    log_m = jnp.log(jnp.maximum((s + z) / 2, jnp.finfo(s.dtype).tiny))
    return jnp.sum(s * (log_s - log_m) + xlogy(z, z) - z * log_m, axis=-1) / 2


DIVERGENCES: Registry[Entry] = Registry("divergence")

for _divergence in (squared_euclidean, kl, cross_entropy, jensen_shannon):
    DIVERGENCES.add(Entry(_divergence.__name__, lambda divergence=_divergence: divergence))
