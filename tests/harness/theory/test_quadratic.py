"""Steps on a quadratic: closed forms, exactly; and the bounds for random spectra."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.theory.quadratic import (
    Array,
    accelerated,
    accelerated_bound,
    conjugate_gradients,
    deflation,
    extremes,
    first_order_bound,
    gradient_descent,
    gradient_descent_bound,
    hessian_of_features,
    jacobi,
    newton,
    steps,
)

LIMIT = 10**6
spectra = st.lists(st.floats(1, 200), min_size=2, max_size=6).map(lambda values: np.array(sorted(values)))


def ends(kappa: float) -> tuple[Array, Array]:
    """Two parameters, curvatures 1 and kappa, and a start that has as much of both."""
    return np.diag([1.0, kappa]), np.ones(2)


@pytest.mark.parametrize(("kappa", "tolerance", "expected"), [(3.0, 2.0**-10, 10), (9.0, 0.8**7, 7), (1.0, 1e-6, 1)])
def test_gradient_descent_meets_its_bound_at_the_two_ends(kappa: float, tolerance: float, expected: int) -> None:
    """Both directions shrink by (kappa - 1) / (kappa + 1) a step: 1/2 at 3, 4/5 at 9."""
    hessian, start = ends(kappa)
    assert steps(gradient_descent(hessian, start), start, tolerance, LIMIT) == expected
    assert gradient_descent_bound(kappa, tolerance) == expected


@pytest.mark.parametrize("kappa", [4.0, 25.0, 400.0])
def test_accelerated_in_the_flattest_direction_has_the_closed_form(kappa: float) -> None:
    hessian, start = np.diag([1.0, kappa]), np.array([1.0, 0.0])
    root = 1 / math.sqrt(kappa)
    for count, error in enumerate(islice(accelerated(hessian, start), 40), 1):
        assert error[0] == pytest.approx((1 + count * root) * (1 - root) ** count, rel=1e-9)
    assert steps(accelerated(hessian, start), start, 1e-6, LIMIT) == accelerated_bound(kappa, 1e-6)


def test_known_values_of_the_bounds() -> None:
    assert accelerated_bound(4.0, 1.5 / 2) == 1  # (1 + 1/2) (1/2) = 0.75
    assert first_order_bound(3.0, 1 / 2) == 1  # T_1(2) = 2
    assert first_order_bound(3.0, 1 / 7) == 2  # T_2(2) = 7
    assert first_order_bound(3.0, 1 / 26) == 3  # T_3(2) = 26
    assert accelerated_bound(1.0, 0.1) == first_order_bound(1.0, 0.1) == 1


def test_gradient_descent_at_twice_the_inverse_of_the_largest_does_not_converge() -> None:
    """The paper's limit on the learning rate: at 2 / sigma_max the steepest direction flips for ever."""
    hessian, start = ends(50.0)
    error = start
    for _ in range(1000):
        error = error - 2 / 50 * (hessian @ error)
    assert abs(error[1]) == pytest.approx(1)
    assert steps(gradient_descent(hessian, start), start, 1e-3, 100) is None


@given(spectra, st.integers(0, 2**31), st.floats(1e-6, 0.5))
def test_no_run_needs_more_than_its_bound(eigenvalues: Array, seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    hessian, start = hessian_of_features(eigenvalues, rng), rng.standard_normal(len(eigenvalues))
    kappa = max(1.0, eigenvalues[-1] / eigenvalues[0])
    found = steps(gradient_descent(hessian, start), start, tolerance, LIMIT)
    assert found is not None
    assert found <= gradient_descent_bound(kappa, tolerance)
    fast = steps(accelerated(hessian, start), start, tolerance, LIMIT)
    assert fast is not None
    assert fast <= accelerated_bound(kappa, tolerance)


@given(spectra, st.integers(0, 2**31))
def test_eigenvalues_are_those_asked_for_and_newton_needs_one_step(eigenvalues: Array, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hessian, start = hessian_of_features(eigenvalues, rng), rng.standard_normal(len(eigenvalues))
    assert np.linalg.eigvalsh(hessian) == pytest.approx(eigenvalues, rel=1e-9)
    assert steps(gradient_descent(hessian, start, newton(hessian)), start, 1e-8, 5) == 1


def test_conjugate_gradients_need_one_step_for_each_distinct_eigenvalue() -> None:
    rng = np.random.default_rng(0)
    for eigenvalues in ([1.0] * 7 + [1e4], [1.0] * 5 + [30.0] * 2 + [1e4], [2.0] * 8):
        hessian = hessian_of_features(np.array(eigenvalues), rng)
        start = rng.standard_normal(8)
        assert steps(conjugate_gradients(hessian, start), start, 1e-8, LIMIT) == len(set(eigenvalues))


def test_conjugate_gradients_stay_at_a_solution() -> None:
    hessian, start = ends(3.0)
    errors = list(islice(conjugate_gradients(hessian, start), 40))
    assert np.linalg.norm(errors[-1]) < 1e-12


def test_a_diagonal_undoes_a_diagonal_and_not_a_rotation() -> None:
    eigenvalues = np.array([1.0, 2, 3, 4, 5, 1e4])
    rng = np.random.default_rng(1)
    aligned = np.diag(eigenvalues)
    assert extremes(aligned, jacobi(aligned)) == pytest.approx((1, 1))
    rotated = hessian_of_features(eigenvalues, rng)
    low, high = extremes(rotated, jacobi(rotated))
    assert high / low > 100


def test_deflation_leaves_the_condition_number_of_the_rest() -> None:
    hessian = hessian_of_features(np.array([1.0, 2, 4, 8, 1e3, 1e5]), np.random.default_rng(2))
    low, high = extremes(hessian, deflation(hessian, 2))
    assert high / low == pytest.approx(8)
    with pytest.raises(ValueError, match="top=6"):
        deflation(hessian, 6)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1.0])
def test_impossible_tolerances_are_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        steps(iter(()), np.ones(1), tolerance, 1)
    for bound in (gradient_descent_bound, accelerated_bound, first_order_bound):
        with pytest.raises(ValueError, match="tolerance"):
            bound(2.0, tolerance)
