"""Each number against a hand-made case and an independent reference.

.venv/bin/pytest tests/analyze/test_formulas.py
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from analyze.measure import alignment as paths
from analyze.measure import formulas as metrics
from analyze.measure import position
from analyze.measure.formulas import Moments
from omni.evaluation.intervals import bootstrap, ratio

ONES = np.ones(20)


def clouds(seed: int = 0, n: int = 400, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian cloud (n, d) and the utterance of each row, 20 utterances."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), np.arange(n) % 20


def gap(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> float:
    return metrics.modality_gap(Moments.of(a, groups, 20), Moments.of(b, groups, 20))(ONES)


def auc(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> float:
    return metrics.domain_auc(a, b, groups, groups)(ONES)


def test_identical_clouds_have_no_gap_and_cannot_be_told_apart() -> None:
    cloud, groups = clouds()
    assert gap(cloud, cloud, groups) == pytest.approx(0, abs=1e-6)
    assert auc(cloud, cloud, groups) == pytest.approx(0.5, abs=0.01)


def test_disjoint_clouds_are_far_apart_and_separable() -> None:
    cloud, groups = clouds()
    away = cloud + 10.0
    # Mean squared distance to the mean of a standard normal in 8 dimensions is about 8.
    spread = np.sqrt(((cloud - cloud.mean(0)) ** 2).sum(1).mean())
    assert gap(cloud, away, groups) == pytest.approx(10 * np.sqrt(8) / spread, rel=1e-6)
    assert auc(cloud, away, groups) == pytest.approx(1.0, abs=1e-6)


def test_a_rotated_copy_keeps_the_shape_but_not_the_place() -> None:
    cloud, groups = clouds()
    cloud = cloud * np.arange(1, 9) + 3.0
    turned = cloud @ ortho_group.rvs(8, random_state=0)
    assert metrics.linear_cka(cloud, turned) == pytest.approx(1)
    assert gap(cloud, turned, groups) > 0.1


def test_gap_is_free_of_scale() -> None:
    cloud, groups = clouds()
    assert gap(cloud, cloud + 1, groups) == pytest.approx(gap(7 * cloud, 7 * (cloud + 1), groups))


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_ignores_rotation_and_isotropic_scale_and_sees_the_rest(debiased: bool) -> None:
    """The invariances of Kornblith et al. 2019, section 2."""
    x, y = clouds(1)[0][:100], clouds(2)[0][:100] + 0.5 * clouds(1)[0][:100]
    turn = ortho_group.rvs(8, random_state=3)
    here = metrics.linear_cka(x, y, debiased)
    assert 0.05 < here < 0.9
    assert metrics.linear_cka(y, x, debiased) == pytest.approx(here)
    assert metrics.linear_cka(5 * x @ turn + 2, y, debiased) == pytest.approx(here)
    assert metrics.linear_cka(x * np.linspace(0.1, 9, 8), y, debiased) != pytest.approx(here, 0.01)
    assert metrics.linear_cka(x, x, debiased) == pytest.approx(1)


def test_plain_cka_equals_the_feature_form() -> None:
    """||y^T x||_F^2 / (||x^T x||_F ||y^T y||_F), the other published form."""
    x, y = clouds(1)[0][:60], clouds(2)[0][:60, :5]
    xc, yc = x - x.mean(0), y - y.mean(0)
    other = np.linalg.norm(yc.T @ xc) ** 2
    other /= np.linalg.norm(xc.T @ xc) * np.linalg.norm(yc.T @ yc)
    assert metrics.linear_cka(x, y, debiased=False) == pytest.approx(other)


def test_debiased_cka_of_unrelated_rows_is_about_zero_where_plain_is_not() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 200)), rng.normal(size=(40, 200))
    assert metrics.linear_cka(x, y, debiased=False) > 0.7
    assert abs(metrics.linear_cka(x, y)) < 0.1


def test_cka_of_constant_rows_is_not_defined() -> None:
    assert np.isnan(metrics.linear_cka(np.ones((20, 3)), clouds()[0][:20]))
    assert np.isnan(metrics.linear_cka(np.eye(3), np.eye(3)))


def test_weighted_auc_equals_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 20, 300).astype(float), rng.integers(0, 2, 300).astype(float)
    weights = rng.integers(0, 4, 300).astype(float)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert metrics.weighted_auc(scores, labels, weights) == pytest.approx(expected)


def test_retrieval_by_hand() -> None:
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.5, 0.6, 0.4]])
    labels = np.arange(3)
    assert metrics.retrieval_hits(similarity, labels, 1).tolist() == [1, 0, 0]
    assert metrics.retrieval_hits(similarity, labels, 2).tolist() == [1, 1, 0]
    # The first two say the same sentence: finding either is right.
    assert metrics.retrieval_hits(similarity, np.array([0, 0, 1]), 1).tolist() == [1, 1, 0]


def test_retrieval_of_identical_and_of_collapsed_clouds() -> None:
    cloud, _ = clouds()
    labels = np.arange(len(cloud))
    same = metrics.centred_cosine(cloud + 5, cloud - 5)
    assert metrics.retrieval_hits(same, labels, 1).mean() == 1
    flat = metrics.centred_cosine(np.ones_like(cloud), cloud)
    assert metrics.retrieval_hits(flat, labels, 5).mean() == 0


def test_permutation_baseline_is_k_over_n() -> None:
    similarity = np.random.default_rng(0).normal(size=(50, 50))
    mean, top = metrics.permutation_baseline(similarity, np.arange(50), 5, draws=400)
    assert mean == pytest.approx(0.1, abs=0.01)
    assert mean < top < 0.25


def test_nearest_tokens_ignore_length_and_match_brute_force() -> None:
    rng = np.random.default_rng(0)
    table, rows = rng.normal(size=(30, 6)), rng.normal(size=(50, 6))
    ids, cosine = metrics.nearest_tokens(rows * 9, table, chunk=7)
    brute = [[r @ t / np.linalg.norm(r) / np.linalg.norm(t) for t in table] for r in rows]
    assert ids.tolist() == np.argmax(brute, 1).tolist()
    assert cosine == pytest.approx(np.max(brute, 1), abs=1e-5)
    assert metrics.nearest_tokens(3 * table, table)[0].tolist() == list(range(30))


def test_token_overlap_by_hand() -> None:
    read, transcript = np.array([4, 4, 7, 9]), np.array([4, 5, 5, 9])
    assert metrics.token_overlap(read, transcript) == (3, 4, 2, 3)
    assert metrics.token_overlap(np.array([1, 2]), transcript) == (0, 2, 0, 3)


def brute_best(similarity: np.ndarray) -> float:
    """Best monotone path by trying each one (n >= m)."""
    n, m = similarity.shape

    def best(i: int, j: int) -> float:
        if i == n - 1:
            return similarity[i, j] if j == m - 1 else -np.inf
        onward = [best(i + 1, j)] + ([best(i + 1, j + 1)] if j + 1 < m else [])
        return similarity[i, j] + max(onward)

    return best(0, 0) / n


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_best_path_is_the_best_and_is_monotone(n: int, m: int, seed: int) -> None:
    similarity = np.random.default_rng(seed).normal(size=(n, m))
    score, path = paths.best_path(similarity)
    assert score == pytest.approx(brute_best(similarity if n >= m else similarity.T))
    assert len(path) == n
    assert (np.diff(path) >= 0).all()
    if n >= m:
        assert set(path) == set(range(m))
        assert similarity[np.arange(n), path].mean() == pytest.approx(score)
    assert paths.path_scores(similarity, np.arange(m)[None])[0] == pytest.approx(score)


def test_order_advantage_sees_order_and_nothing_else() -> None:
    """A staircase is in order; a constant matrix and a bag of words are not."""
    rng = np.random.default_rng(0)
    staircase = np.kron(np.eye(6), np.ones((4, 1)))
    assert paths.order_advantage(staircase, rng, 50) > 0.4
    assert paths.order_advantage(np.ones((24, 6)), rng) == pytest.approx(0, abs=1e-12)
    backwards = np.mean([paths.order_advantage(staircase[::-1], rng, 50) for _ in range(5)])
    assert backwards < 0
    unordered = [paths.order_advantage(rng.normal(size=(24, 6)), rng) for _ in range(200)]
    assert abs(np.mean(unordered)) < 0.03
    assert np.isnan(paths.order_advantage(np.ones((5, 1)), rng))


def test_bootstrap_covers_the_mean_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        x = rng.normal(1.0, 1.0, 60)
        found = bootstrap(ratio(x, np.ones(60)), 60, draws=200, seed=trial)
        assert found.low < found.value < found.high
        covered += found.low <= 1.0 <= found.high
    assert 86 <= covered <= 100
    assert found == bootstrap(ratio(x, np.ones(60)), 60, draws=200, seed=trial)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=400)
    found = metrics.jackknife(lambda kept: float(x[kept].mean()), 400)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * x.std() / 20, rel=0.4)


def test_small_samples_are_undefined_or_without_interval_never_an_error() -> None:
    cloud = clouds()[0][:2]
    one = metrics.domain_auc(cloud, cloud, np.zeros(2, int), np.zeros(2, int))
    assert not bootstrap(one, 1).defined
    alone = bootstrap(ratio(np.array([2.0]), np.array([4.0])), 1)
    assert (alone.low, alone.value, alone.high) == (0.5, 0.5, 0.5)


def test_pca_by_singular_values_equals_ours() -> None:
    """Components and shares of variance against a plain SVD, up to sign."""
    cloud = clouds()[0] * np.arange(1, 9)
    ours = position.fit_pca(cloud, 3)
    centred = cloud - cloud.mean(0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    assert ours.explained_variance_ratio_ == pytest.approx((s**2 / (s**2).sum())[:3])
    assert np.abs((ours.components_ * vt[:3]).sum(1)) == pytest.approx(1)
    reference = PCA(3, svd_solver="full").fit(cloud)
    assert np.abs(ours.transform(cloud)) == pytest.approx(np.abs(reference.transform(cloud)))


def test_position_is_found_and_removed() -> None:
    rng = np.random.default_rng(0)
    steps = np.tile(np.arange(40), 30)
    clock = np.sin(steps[:, None] / 40 * np.array([1.0, 2.0, 3.0])) * 10
    frames = clock + rng.normal(size=(1200, 3))
    assert position.position_r2(frames[:, 0], steps) > 0.8
    cleaned, kept = position.remove_position(frames, steps)
    assert kept.all()
    assert abs(position.position_r2(cleaned[:, 0], steps)) < 0.05
    assert cleaned.std() == pytest.approx(1, rel=0.1)


def test_few_positions_do_not_overfit() -> None:
    """A curve has no more freedom than there are positions; one position explains nothing."""
    rng = np.random.default_rng(0)
    assert abs(position.position_r2(rng.normal(size=300), np.arange(300) % 3)) < 0.05
    assert np.isnan(position.position_r2(rng.normal(size=30), np.zeros(30, int)))
