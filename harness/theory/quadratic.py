"""Steps to solve a convex quadratic against its condition number (SpecDef workshop paper, Figure 1 and section 2).

`f(x) = (x - x*)' H (x - x*) / 2`. Everything is written for the error `e = x - x*`, whose gradient is `H e`: the count
of steps does not depend on `x*`. A method is an iterator over the errors after one step, two steps, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]
_ROUNDING = 1e-9
"""Slack for counts that are whole numbers in exact arithmetic."""


def hessian_of_features(eigenvalues: Array, rng: np.random.Generator) -> Array:
    """`X'X` of Gaussian features X whose singular values are set to the roots of `eigenvalues` (as for Figure 1).

    Args:
        eigenvalues: (d,), all positive.
        rng: draws X, (2 d, d).

    Returns:
        (d, d), symmetric, with these eigenvalues and Haar-random eigenvectors.
    """
    size = len(eigenvalues)
    _, _, right = np.linalg.svd(rng.standard_normal((2 * size, size)), full_matrices=False)
    hessian = (right.T * eigenvalues) @ right
    return np.asarray((hessian + hessian.T) / 2)


def gradient_descent(hessian: Array, start: Array, preconditioner: Array | None = None) -> Iterator[Array]:
    """`e <- e - lr P H e` with the best constant rate, `2 / (sigma_max + sigma_min)` of `P H`; P is I if None.

    It is just below the largest rate that avoids divergence: at `2 / sigma_max` the steepest direction flips for ever.
    """
    scaled = hessian if preconditioner is None else preconditioner @ hessian
    low, high = extremes(hessian, preconditioner)
    rate = 2 / (low + high)
    error = start
    while True:
        error = error - rate * (scaled @ error)
        yield error


def accelerated(hessian: Array, start: Array) -> Iterator[Array]:
    """Nesterov's method for strongly convex functions: rate `1 / sigma_max`, constant momentum (Nesterov 2013)."""
    low, high = extremes(hessian)
    root = math.sqrt(low / high)
    momentum = (1 - root) / (1 + root)
    before = error = start
    while True:
        ahead = error + momentum * (error - before)
        before, error = error, ahead - (hessian @ ahead) / high
        yield error


def conjugate_gradients(hessian: Array, start: Array) -> Iterator[Array]:
    """The best error in the Krylov space after each product with H: no rate to choose, and it uses gaps."""
    error, residual = start, -(hessian @ start)
    direction = residual
    while True:
        product = hessian @ direction
        curvature = float(direction @ product)
        if curvature <= 0.0:  # nothing is left to search: already solved to the last bit
            yield error
            continue
        size = float(residual @ residual)
        error = error + size / curvature * direction
        residual = residual - size / curvature * product
        direction = residual + float(residual @ residual) / size * direction
        yield error


def jacobi(hessian: Array) -> Array:
    """The diagonal preconditioner `1 / diag(H)`: what scaling every parameter by its own curvature does."""
    return np.diag(1 / np.diag(hessian))


def deflation(hessian: Array, top: int) -> Array:
    """The preconditioner that pulls the `top` largest eigenvalues down to the next one; costs `top` eigenvectors of H.

    Raises:
        ValueError: `top` is not in 1 ... d - 1.
    """
    if not 1 <= top < len(hessian):
        raise ValueError(f"top={top}: allowed are 1 to {len(hessian) - 1}")
    values, vectors = np.linalg.eigh(hessian)
    scale = np.minimum(1, values[-top - 1] / values)
    return np.asarray((vectors * scale) @ vectors.T)


def newton(hessian: Array) -> Array:
    """The full preconditioner, the inverse Hessian (the paper's appendix C: condition number 1)."""
    return np.asarray(np.linalg.inv(hessian))


def extremes(hessian: Array, preconditioner: Array | None = None) -> tuple[float, float]:
    """Smallest and largest eigenvalue of `P H`."""
    inverse = None if preconditioner is None else np.linalg.inv(preconditioner)
    values = scipy.linalg.eigvalsh(hessian, inverse)
    return float(values[0]), float(values[-1])


def steps(errors: Iterator[Array], start: Array, tolerance: float, limit: int) -> int | None:
    """Steps until `|e| <= tolerance |e_0|`, counted by running the method; None if that takes more than `limit`.

    Raises:
        ValueError: the tolerance is not between 0 and 1.
    """
    _check(tolerance)
    target = tolerance * (1 + _ROUNDING) * float(np.linalg.norm(start))
    for count, error in enumerate(errors, 1):
        if float(np.linalg.norm(error)) <= target:
            return count
        if count == limit:
            return None
    return None


def gradient_descent_bound(kappa: float, tolerance: float) -> int:
    """Most steps of gradient descent at its best rate: `|e_t| <= ((kappa - 1) / (kappa + 1))^t |e_0|`; order kappa."""
    _check(tolerance)
    if kappa == 1:
        return 1
    return math.ceil(math.log(1 / tolerance) / math.log((kappa + 1) / (kappa - 1)) - _ROUNDING)


def accelerated_bound(kappa: float, tolerance: float) -> int:
    """Most steps `accelerated` needs: least t with `(1 + t / sqrt(kappa)) (1 - 1 / sqrt(kappa))^t <= tolerance`.

    Order sqrt(kappa). It is exact: the flattest direction has a double root, and its error is this times its start.
    """
    _check(tolerance)
    if kappa == 1:
        return 1
    root, rate = 1 / math.sqrt(kappa), math.log1p(-1 / math.sqrt(kappa))

    def above(count: int) -> bool:
        return math.log1p(count * root) + count * rate > math.log(tolerance) + _ROUNDING

    low, high = 0, 1
    while above(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return high


def first_order_bound(kappa: float, tolerance: float) -> int:
    """Steps that no first-order method can guarantee to beat when the dimension is larger: Chebyshev's polynomial.

    Least t with `1 / T_t((kappa + 1) / (kappa - 1)) <= tolerance` (Nesterov 2013, theorem 2.1.13), order sqrt(kappa).
    Every method whose step depends on gradients only multiplies the error by a polynomial in H; this one
    is smallest over the whole interval. A spectrum with gaps (a few large values) is easier.
    """
    _check(tolerance)
    if kappa == 1:
        return 1
    return math.ceil(math.acosh(1 / tolerance) / math.acosh((kappa + 1) / (kappa - 1)) - _ROUNDING)


def _check(tolerance: float) -> None:
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance}: allowed are values between 0 and 1, both excluded")
