"""Eigenvalues of mixing matrices, computed on the host: how quickly matrices mix, and which step sizes they allow."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from ddjax.errors import InputError

# Largest number of devices for dense eigenvalue methods, which take seconds at this size. For more devices, iterative
# methods use the settings on the next line.
_DENSE = 2000
_KRYLOV, _RESTARTS, _TOLERANCE = 40, 75, 1e-10

Matrices = Sequence[scipy.sparse.csr_array]


def spectral_gap(matrices: Matrices, drawn: bool = False) -> float | None:
    """Compute the spectral gap: 1 minus the factor by which disagreement shrinks in one round.

    For one matrix, the gap is `1 − |λ₂|`, where `λ₂` is the eigenvalue with the second largest modulus. For a cycle,
    the factor is the geometric mean over the rounds. For graphs that are drawn anew, the gap is `1 − √λ₂(E[WᵀW])`
    (Boyd, Ghosh, Prabhakar, Shah 2006). For one device, the gap is 1.

    Args:
      matrices: float64 arrays `[N, N]`: one matrix, the matrices of a cycle, or a few draws.
      drawn: whether the matrices are draws.

    Returns:
      The gap; `None` if it was not found, which can happen on an irregular graph that has thousands of devices and
      mixes very slowly.
    """
    rounds, devices = len(matrices), matrices[0].shape[0]
    if devices == 1:
        return 1.0
    if drawn:
        # All devices are alike, so E[WᵀW] has the form a I + b 11ᵀ; its trace is the mean trace of the draws.
        squares = sum((matrix.data**2).sum() for matrix in matrices) / rounds
        return float(1 - np.sqrt((squares - 1) / (devices - 1)))
    second = _second_modulus(matrices)
    # The root would magnify rounding errors.
    return None if second is None else float(1 - (second if second > 1e-12 else 0) ** (1 / rounds))


def largest_consensus_step_size(matrices: Matrices) -> float:
    """Compute the `ζ` below which `z ← W z + ζ (s − z)` is stable.

    The step is stable if every eigenvalue of `W − ζ I` lies inside the unit circle: `|λ − ζ| < 1`, or `ζ < Re λ + √(1 −
    (Im λ)²)`. The limit is the smallest of these bounds over the eigenvalues: 2/3 on a large ring, but 2/(d + 1) on a
    `d`-dimensional hypercube. For several matrices, the result is the smallest of their limits, which suffices if the
    matrices are normal. Push-sum uses column-stochastic matrices. Push-sum weights far below 1 amplify the added term
    `ζ (s − z)`, so the limit for such a matrix is found by bisection. If the eigenvalues of a matrix for thousands of
    devices cannot be found, the limit is `2 min_n W_nn`, below which every step is stable by Gershgorin's theorem.

    Args:
      matrices: float64 arrays `[N, N]`: one matrix, the matrices of a cycle, or a few draws.

    Raises:
      InputError: if no limit is known. This happens only with column-stochastic matrices, if they change from round to
        round, have more than 2000 rows, or let a push-sum weight fall below 1e-4.
    """
    rows, columns = (max(abs(m.sum(axis) - 1).max() for m in matrices) for axis in (1, 0))
    if rows > 1e-4 and columns < 1e-4:  # beyond rounding
        return _push_sum_limit(matrices)
    return min(map(_step_limit, matrices))


def gershgorin_step_size(matrices: Matrices) -> float:
    """Compute a bound below which every `ζ` is stable, for row-stochastic matrices with these or larger diagonals."""
    return float(min(2 * matrix.diagonal().min() for matrix in matrices))


def _step_limit(matrix: scipy.sparse.csr_array) -> float:
    eigenvalues: np.ndarray | None = _circulant_eigenvalues(matrix)
    if eigenvalues is None and matrix.shape[0] <= _DENSE:
        eigenvalues = _eigenvalues(matrix.toarray())
    elif eigenvalues is None and _symmetric(matrix):
        eigenvalues = _extreme(matrix, symmetric=True, which="SA")
    if eigenvalues is None:
        return float(2 * matrix.diagonal().min())
    return float(np.min(eigenvalues.real + np.sqrt(np.maximum(1 - eigenvalues.imag**2, 0))))


def _push_sum_limit(matrices: Matrices) -> float:
    """Find the `ζ` up to which distillation over push-sum is stable, once the weights have settled."""
    devices = matrices[0].shape[0]
    reason = "it changes" if len(matrices) > 1 else f"it has more than {_DENSE} devices" if devices > _DENSE else ""
    if not reason:
        matrix = matrices[0].toarray()
        settled = np.linalg.matrix_power(matrix, 10_000) @ np.ones(devices)
        if settled.min() < 1e-4:
            reason = f"a push-sum weight falls to {settled.min():.1g}"
    if reason:
        raise InputError(
            f"the largest stable consensus step size of push_sum is unknown on this network, because {reason}; use "
            "consensus tracking, which needs no step size"
        )
    debiased, identity = matrix / settled[:, None], np.eye(devices)

    def grows(step: float) -> bool:
        # The last mixed value v and the estimate z change by v ← P (z + (w − 1) v) / w and z ← v − ζ z.
        mixed = np.hstack([debiased * (settled - 1), debiased])
        both = np.vstack([mixed, mixed - step * np.hstack([0 * identity, identity])])
        return bool(np.abs(np.linalg.eigvals(both)).max() > 1 + 1e-9)

    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    return low


def _symmetric(matrix: scipy.sparse.csr_array) -> bool:
    return (matrix != matrix.T).nnz == 0


def _circulant_eigenvalues(matrix: scipy.sparse.csr_array) -> np.ndarray | None:
    """Compute eigenvalues in the order of the Fourier basis; `None` if the matrix is not circulant."""
    column = matrix[:, [0]].toarray()[:, 0]
    entries = matrix.tocoo()
    same = np.allclose(entries.data, column[(entries.row - entries.col) % len(column)], rtol=0, atol=1e-12)
    return np.fft.fft(column) if same and matrix.nnz == len(column) * np.count_nonzero(column) else None


def _eigenvalues(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(matrix) if np.array_equal(matrix, matrix.T) else np.linalg.eigvals(matrix)


def _second_modulus(matrices: Matrices) -> float | None:
    """Compute the second largest modulus of the eigenvalues of a product of matrices; `None` if it is not found."""
    devices = matrices[0].shape[0]
    shared = [each for matrix in matrices if (each := _circulant_eigenvalues(matrix)) is not None]
    if len(shared) == len(matrices):
        eigenvalues = np.prod(shared, axis=0)
    elif devices <= _DENSE:
        eigenvalues = _eigenvalues(functools.reduce(lambda all, matrix: matrix @ all, matrices).toarray())
    else:
        return _iterated_modulus(matrices)
    return float(np.sort(np.abs(eigenvalues))[-2])


def _iterated_modulus(matrices: Matrices) -> float | None:
    devices = matrices[0].shape[0]
    symmetric = len(matrices) == 1 and _symmetric(matrices[0])

    def apply(x: np.ndarray) -> np.ndarray:
        # Subtracting the mean changes one eigenvalue of a row- or column-stochastic matrix: the eigenvalue 1 becomes 0.
        return functools.reduce(lambda x, matrix: matrix @ x, matrices, x) - x.mean()

    from scipy.sparse.linalg import LinearOperator  # slow to import

    operator = LinearOperator((devices, devices), apply, dtype=float)
    found = _extreme(operator, symmetric, which="LM")
    return None if found is None else float(np.abs(found[0]))


def _extreme(operator: Any, symmetric: bool, which: str) -> np.ndarray | None:
    """Find an eigenvalue at one end of the spectrum by Lanczos or Arnoldi iteration; `None` without convergence."""
    from scipy.sparse import linalg  # slow to import

    method = linalg.eigsh if symmetric else linalg.eigs
    start = np.random.default_rng(0).normal(size=operator.shape[0])
    limits = {"ncv": _KRYLOV, "maxiter": _RESTARTS, "tol": _TOLERANCE}
    try:
        return method(operator, k=1, which=which, v0=start, return_eigenvectors=False, **limits)
    except linalg.ArpackNoConvergence:
        return None
