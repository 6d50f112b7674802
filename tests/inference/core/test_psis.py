"""Pareto smoothing, against arviz and against tails of known shape."""

from __future__ import annotations

import time

import arviz
import numpy as np
import pytest

from avse_ppl.inference.core import psis as module
from avse_ppl.inference.core.psis import pareto_fit, pareto_quantile, psis


def ratios(rows, draws, scale=1.0, seed=0):
    """Heavier tails further down, ``(row, draw)``."""
    normal = np.random.default_rng(seed).normal(size=(rows, draws))
    return scale * np.linspace(0.1, 3, rows)[:, None] * normal + 50.0


def arviz_rows(array):
    weights, k_hat = zip(*(arviz.psislw(row.copy()) for row in array), strict=True)
    return np.array(weights), np.array(k_hat, dtype=float)


@pytest.mark.parametrize("draws", [25, 100, 225, 1000, 4001])
def test_it_is_what_arviz_has(draws):
    array = ratios(30, draws)
    weights, k_hat = psis(array)
    expected, expected_k = arviz_rows(array)
    np.testing.assert_allclose(k_hat, expected_k, atol=1e-6)
    np.testing.assert_allclose(weights, expected, atol=1e-6)


@pytest.mark.parametrize("distinct", [3, 8, 12, 60])
def test_ties_shorten_the_tail_as_in_arviz(distinct):
    array = np.round(ratios(40, 200) * 4) / 4
    array[:, : 200 - distinct] = array.min()
    weights, k_hat = psis(array)
    expected, expected_k = arviz_rows(array)
    np.testing.assert_allclose(k_hat, expected_k, atol=1e-6)
    # Which of two equal weights becomes the larger one is left to the sorting.
    np.testing.assert_allclose(np.sort(weights), np.sort(expected), atol=1e-6)


def test_improbable_draws_are_no_trouble():
    array = ratios(5, 300, scale=400.0)
    array[:, ::7] = -np.inf
    weights, k_hat = psis(array)
    expected, expected_k = arviz_rows(array)
    np.testing.assert_allclose(k_hat, expected_k, atol=1e-6)
    finite = np.isfinite(expected)
    np.testing.assert_allclose(weights[finite], expected[finite], atol=1e-6)
    assert (weights[:, ::7] == -np.inf).all()


def test_any_leading_axes_and_the_input_is_left_alone():
    array = ratios(12, 64)
    before = array.copy()
    flat, flat_k = psis(array)
    cube, cube_k = psis(array.reshape(3, 4, 64))
    one, one_k = psis(array[7])
    np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(cube, flat.reshape(3, 4, 64))
    np.testing.assert_array_equal(cube_k, flat_k.reshape(3, 4))
    np.testing.assert_array_equal(one, flat[7])
    assert one_k.shape == ()
    assert one_k == flat_k[7]
    np.testing.assert_allclose(np.exp(flat).sum(axis=1), 1.0)


@pytest.mark.parametrize("k", [0.1, 0.4, 0.9])
def test_the_shape_of_a_known_tail_is_found(k):
    # The ratios of exponentials raised to k have a Pareto tail of shape k; the estimate from
    # 190 of 4000 weights has a sd of about (1 + k) / sqrt(190).
    exponential = np.random.default_rng(1).exponential(size=(50, 4000))
    _, k_hat = psis(k * exponential)
    error = (1 + k) / np.sqrt(190 * 50)
    assert k_hat.mean() == pytest.approx(k, abs=4 * error + 10 * abs(0.5 - k) / 200)


def test_the_order_of_the_weights_is_kept():
    array = ratios(4, 500)
    weights, _ = psis(array)
    order = np.argsort(array, axis=1)
    assert (np.diff(np.take_along_axis(weights, order, 1), axis=1) >= -1e-12).all()


def test_even_weights_need_no_smoothing():
    array = np.full((2, 100), -3.0)
    array[1] += 1e-12 * np.arange(100)
    weights, k_hat = psis(array)
    np.testing.assert_array_equal(k_hat, 0.0)
    np.testing.assert_allclose(weights, -np.log(100))


def test_too_few_draws_to_tell():
    weights, k_hat = psis(ratios(3, 20))
    assert np.isposinf(k_hat).all()
    np.testing.assert_allclose(np.exp(weights).sum(axis=1), 1.0)
    assert psis(np.array([1.0]))[0] == 0.0


def test_many_rows_in_pieces_are_the_same(monkeypatch):
    array = ratios(50, 100)
    whole = psis(array)
    monkeypatch.setattr(module, "_ELEMENTS", 3000)
    for one, other in zip(whole, psis(array), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_rows():
    weights, k_hat = psis(np.zeros((0, 100)))
    assert weights.shape == (0, 100)
    assert k_hat.shape == (0,)


def test_it_is_faster_than_a_loop():
    array = np.random.default_rng(0).normal(size=(2000, 100))
    begin = time.process_time()
    psis(array)
    ours = time.process_time() - begin
    begin = time.process_time()
    arviz_rows(array[:200])
    assert ours < 10 * (time.process_time() - begin) / 3


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.zeros((3, 0)), "at least one draw"),
        (np.float64(1.0), "at least one draw"),
        (np.array([[0.0, np.nan]]), r"NaN or \+inf"),
        (np.array([0.0, np.inf]), r"NaN or \+inf"),
        (np.array([[0.0, 1.0], [-np.inf, -np.inf]]), "no draw has any weight"),
    ],
)
def test_ratios_that_are_none(bad, text):
    with pytest.raises(ValueError, match=text):
        psis(bad)


def test_the_fit_scales_with_the_values():
    values = np.sort(np.random.default_rng(2).exponential(size=(3, 80)), axis=1)
    (k, scale), (k_2, scale_2) = pareto_fit(values), pareto_fit(1000.0 * values)
    np.testing.assert_allclose(k, k_2, atol=1e-9)
    np.testing.assert_allclose(1000.0 * scale, scale_2)


def test_the_quantile_of_shape_0_is_the_limit():
    p, one = np.array([0.1, 0.5, 0.99]), np.ones(3)
    at_0, near_0 = (pareto_quantile(p, k * one, 2.0 * one) for k in (0.0, 1e-9))
    np.testing.assert_allclose(at_0, near_0, rtol=1e-6)
    np.testing.assert_allclose(at_0, -2.0 * np.log1p(-p))
