"""Each statistic against a simulation whose truth is known, or against a published or independent value."""

from functools import cache, partial

import numpy as np
import pytest
from scipy import stats

from nlp_ft.study.statistics import (
    Interval,
    Variances,
    deviations,
    groups_of,
    holm,
    mcnemar,
    over_rows,
    over_seeds,
    power,
    rows_needed,
    seeds_needed,
    undecided,
    variances,
    without_each,
    words,
)

EXPERIMENTS = 1000
GROUPS = 100
SITUATIONS = {
    "seeds and rows alike": (0.1, 1.0, 1.0),
    "seeds above all": (0.5, 1.0, 1.0),
    "rows above all": (0.02, 1.0, 0.3),
    "neither": (0.0, 0.0, 1.0),
}
"""Deviation of seeds, of groups of rows, and of both together."""


def crossed(differences: np.ndarray, of_groups: np.ndarray) -> Interval:
    """The mean difference over new seeds and new rows; see `variances` for the arguments."""
    return variances(differences, of_groups).interval(float(differences.mean()), len(differences))


def simulated(situation: str, seeds: int, mean: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Differences of each experiment, (experiments, seeds), and what the groups add, (experiments, seeds, groups)."""
    of_seeds, of_groups, of_both = SITUATIONS[situation]
    draw = np.random.default_rng(seed).standard_normal
    values = mean + of_seeds * draw((EXPERIMENTS, seeds, 1)) + of_groups * draw((EXPERIMENTS, 1, GROUPS))
    values = values + of_both * draw((EXPERIMENTS, seeds, GROUPS))
    return values.mean(2), values - values.mean(2, keepdims=True)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_crossed_interval_covers_the_mean_over_seeds_and_rows(situation: str, seeds: int) -> None:
    found = [crossed(*experiment) for experiment in zip(*simulated(situation, seeds))]
    assert 0.93 <= np.mean([low <= 0 <= high for low, high in (one.bounds for one in found)]) <= 0.97


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_over_seeds_covers_the_mean_on_the_same_rows(seeds: int) -> None:
    of_seeds, of_groups, of_both = SITUATIONS["seeds and rows alike"]
    random = np.random.default_rng(0)
    truth = of_groups * random.standard_normal((EXPERIMENTS, GROUPS)).mean(1)
    noise = (of_seeds**2 + of_both**2 / GROUPS) ** 0.5 * random.standard_normal((EXPERIMENTS, seeds))
    found = [over_seeds(differences).bounds for differences in truth[:, None] + noise]
    assert 0.93 <= np.mean([low <= mean <= high for (low, high), mean in zip(found, truth)]) <= 0.97


@pytest.mark.parametrize("seeds", [1, 3, 5, 10])
def test_the_bootstrap_over_rows_covers_the_mean_of_the_same_seeds(seeds: int) -> None:
    of_seeds, of_groups, of_both = SITUATIONS["seeds and rows alike"]
    draw = np.random.default_rng(0).standard_normal
    truth = of_seeds * draw((EXPERIMENTS, seeds))
    values = (
        truth[:, :, None] + of_groups * draw((EXPERIMENTS, 1, GROUPS)) + of_both * draw((EXPERIMENTS, seeds, GROUPS))
    )
    means = values.mean(2)
    found = [over_rows(mean, of - mean[:, None]) for mean, of in zip(means, values)]
    covered = [low <= mean <= high for (low, high), mean in zip(found, truth.mean(1))]
    assert 0.93 <= np.mean(covered) <= 0.97


@cache
def labels_and_answers(seeds: int, experiment: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels and clusters of 600 rows, (rows,), and the answers of two models, (2, seeds, rows).

    Rows of a cluster are hard or easy together, by model; each seed moves each model, too. In truth the two are equal.
    """
    random = np.random.default_rng((seeds, experiment))
    clusters = random.integers(120, size=600)
    labels = random.random(600) < 0.4
    of_model = 0.7 * random.standard_normal((2, 1, 120))[:, :, clusters] + 0.2 * random.standard_normal((2, seeds, 1))
    right = 1.0 + random.standard_normal(120)[clusters] + of_model + random.standard_normal((2, seeds, 600)) > 0
    return labels, clusters, np.where(right, labels, ~labels), right


def f1(labels: np.ndarray, answers: np.ndarray) -> float:
    """F1 of the label True."""
    return float(2 * (labels & answers).sum() / (labels.sum() + answers.sum()))


def clustered(seeds: int, experiment: int, metric: str, by_cluster: bool = True) -> Interval:
    """The crossed interval of a metric that is no mean, or is, on clustered rows."""
    labels, clusters, answers, right = labels_and_answers(seeds, experiment)
    groups = groups_of(clusters.tolist() if by_cluster else range(600))

    def score(model: int, seed: int, rows: np.ndarray) -> float:
        return (
            f1(labels[rows], answers[model, seed, rows]) if metric == "f1" else float(right[model, seed, rows].mean())
        )

    everything = np.ones(600, dtype=bool)
    whole = np.array([[score(model, seed, everything) for seed in range(seeds)] for model in range(2)])
    without = np.array(
        [[without_each(partial(score, model, seed), groups) for seed in range(seeds)] for model in range(2)]
    )
    of_groups = [deviations(whole[model], without[model]) for model in range(2)]
    return crossed(whole[1] - whole[0], of_groups[1] - of_groups[0])


@pytest.mark.parametrize(("seeds", "metric"), [(3, "accuracy"), pytest.param(5, "f1", marks=pytest.mark.slow)])
def test_the_crossed_interval_covers_on_clustered_rows_and_with_f1(seeds: int, metric: str) -> None:
    bounds = [clustered(seeds, experiment, metric).bounds for experiment in range(200)]
    # The deviation of a share of 200 is 1.5 points.
    assert 0.92 <= np.mean([low <= 0 <= high for low, high in bounds]) <= 0.985


@pytest.mark.slow
def test_without_the_clusters_the_interval_covers_less() -> None:
    bounds = [clustered(5, experiment, "accuracy", by_cluster=False).bounds for experiment in range(200)]
    assert np.mean([low <= 0 <= high for low, high in bounds]) < 0.92


def test_groups_keep_clusters_together_and_are_as_many_as_asked() -> None:
    groups = groups_of([row // 3 for row in range(900)], 50)
    assert (groups.reshape(300, 3) == groups[::3, None]).all()
    assert sorted(set(groups.tolist())) == list(range(50))
    assert np.bincount(groups).tolist() == [18] * 50
    assert sorted(groups_of(["a", "b", "a"]).tolist()) in ([0, 0, 1], [0, 1, 1])


def test_deviations_of_a_mean_are_the_means_of_the_groups() -> None:
    rows, groups = np.arange(12.0), np.arange(12) % 4
    without = without_each(lambda kept: float(rows[kept].mean()), groups)
    expected = [[rows[groups == group].mean() - rows.mean() for group in range(4)]]
    np.testing.assert_allclose(deviations(np.array([rows.mean()]), without[None]), expected, atol=1e-12)


def test_variances_are_found_again() -> None:
    whole, of_groups = simulated("seeds and rows alike", 10)
    parts = [variances(*experiment) for experiment in zip(whole, of_groups)]
    found = [np.mean([getattr(one, name) for one in parts]) for name in ("seeds", "groups", "both")]
    np.testing.assert_allclose(found, [0.01, 1.0, 1.0], rtol=0.06)


def test_over_seeds_is_the_paired_t_test() -> None:
    first, second = np.array([0.81, 0.79, 0.84]), np.array([0.78, 0.78, 0.79])
    reference = stats.ttest_rel(first, second)
    found = over_seeds(first - second)
    assert found.p_different == pytest.approx(reference.pvalue)
    assert found.bounds == pytest.approx(tuple(reference.confidence_interval()))


def test_mcnemar_is_the_exact_test_of_the_rows_that_differ() -> None:
    hits = np.array([True] * 15 + [False] * 5 + [True] * 80)
    baseline = np.array([False] * 15 + [True] * 5 + [True] * 80)
    # 2 x (sum of C(20, k) for k up to 5) / 2^20 = 2 x 21,700 / 1,048,576
    assert mcnemar(hits, baseline) == pytest.approx(43_400 / 1_048_576)
    assert mcnemar(hits, hits) == 1.0


def test_holm_multiplies_the_lowest_by_their_number() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_words_name_difference_equality_and_ignorance() -> None:
    intervals = [Interval(2, 0.3, 8), Interval(-2, 0.3, 8), Interval(0.1, 0.1, 8), Interval(0.3, 0.9, 8)]
    assert words(intervals, 0.5) == ["better", "worse", "equal", "cannot tell yet"]
    assert words([Interval(0.0, 0.0, 4), Interval(1.0, 0.0, 4)], 0.5) == ["equal", "better"]


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_at_most_five_percent_of_the_families_have_a_false_word(seeds: int) -> None:
    """Three strategies that equal the baseline, then three that are exactly the margin away from it."""
    margin = 0.4
    same = [simulated("seeds and rows alike", seeds, seed=seed) for seed in range(3)]
    far = [simulated("seeds and rows alike", seeds, margin, seed=seed) for seed in range(3)]
    judged_same = [words([crossed(*one) for one in family], margin) for family in by_experiment(same)]
    judged_far = [words([crossed(*one) for one in family], margin) for family in by_experiment(far)]
    assert np.mean([{"better", "worse"} & set(found) != set() for found in judged_same]) <= 0.055
    assert np.mean(["equal" in found for found in judged_far]) <= 0.055
    assert np.mean(["worse" in found for found in judged_far]) <= 0.01


def by_experiment(families: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[tuple[np.ndarray, np.ndarray], ...]]:
    """For each experiment the arguments of `crossed` of each strategy."""
    return list(zip(*(zip(*family) for family in families)))


def test_power_is_the_share_of_experiments_that_show_the_difference() -> None:
    of_seeds, of_groups, of_both = SITUATIONS["seeds and rows alike"]
    parts = Variances(of_seeds**2, of_groups**2, of_both**2, GROUPS)
    found = [crossed(*experiment).p_different < 0.05 for experiment in zip(*simulated("seeds and rows alike", 5, 0.3))]
    assert power(parts, 0.3, 5) == pytest.approx(np.mean(found), abs=0.04)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_power_over_seeds_alone_is_that_of_the_paired_t_test(seeds: int) -> None:
    drawn = 1.0 + 2**0.5 * np.random.default_rng(0).standard_normal((20_000, seeds))
    shown = (stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05) & (drawn.mean(1) > 0)
    assert power(Variances(2.0, 0.0, 0.0, GROUPS), 1.0, seeds) == pytest.approx(shown.mean(), abs=0.01)


def test_seeds_needed_are_those_with_80_percent_power_and_none_if_the_rows_are_too_few() -> None:
    parts = Variances(1.0, 0.0, 0.0, GROUPS)
    assert (seeds_needed(parts, 1.0), power(parts, 1.0, 10) >= 0.8, power(parts, 1.0, 9) < 0.8) == (10, True, True)
    few_rows = Variances(0.0001, 1.0, 0.0, GROUPS)
    assert seeds_needed(few_rows, 0.1) is None
    # (1.96 + 0.84)^2 x 0.01 / 0.1^2 times as many rows
    assert rows_needed(few_rows, 0.1, 1000) == 7849


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("difference", [0.0, 0.04])
def test_seeds_that_tie_by_chance_do_not_make_an_interval_of_no_width(seeds: int, difference: float) -> None:
    """On 25 rows, each seed gains other rows than the next one, and all have the same score."""
    rows = np.zeros((seeds, 25))
    for seed in range(seeds):
        rows[seed, [3 * seed, 3 * seed + 1, 3 * seed + 2]] = [1, -1, 25 * difference]
    found = crossed(np.full(seeds, difference), rows - difference)
    # As if a row of a seed were drawn anew each time: its variance over rows and seeds.
    of_rows = rows - difference
    both = ((of_rows - of_rows.mean(0)) ** 2).sum() / ((seeds - 1) * 24)
    assert found.error == pytest.approx((both / (25 * seeds)) ** 0.5)
    assert words([found], 0.005) == ["cannot tell yet"]


def test_the_rows_that_a_share_without_any_difference_takes_are_three_by_the_margin() -> None:
    parts = undecided(25, 25)
    # Half of 3 / rows is a standard error, of which 1.96 + 0.84 must fit into the margin.
    assert rows_needed(parts, 0.005, 25) == int(np.ceil(1.5 * (1.959964 + 0.841621) / 0.005))
