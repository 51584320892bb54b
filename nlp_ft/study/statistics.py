"""Statistics of paired comparisons: runs of several seeds, scored on the same test rows. Imports no torch.

A test set and a set of seeds are both samples, so an interval must cross both. The design is that of several readers
who judge the same cases (Obuchowski and Rockette 1995, https://doi.org/10.1080/03610919508813243): seeds are readers.
All scores are differences to a baseline, in the unit of the metric, positive where better.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

MOST_GROUPS = 100
"""Groups of test rows that are left out in turn; each metric is computed so many times for each run."""
LEVEL = 0.95
DRAWS = 2000
"""Draws of the bootstrap over rows."""
POWER = 0.8
TIE = 1e-9
"""Scores that differ by less are the same."""
MOST_SEEDS = 100


@dataclass(frozen=True)
class Interval:
    """An estimate with its standard error and degrees of freedom."""

    value: float
    error: float
    df: float

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval."""
        return float(stats.t.ppf(0.5 + LEVEL / 2, self.df)) * self.error if self.error else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.value - self.half_width, self.value + self.half_width

    @property
    def p_different(self) -> float:
        """The p value of "there is no difference", two-sided."""
        if not self.error:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.df))

    def p_equal(self, margin: float) -> float:
        """Compute the p value of "the difference is `margin` or more": two one-sided tests.

        Schuirmann 1987, https://doi.org/10.1007/BF01068419.
        """
        if not self.error:
            return float(abs(self.value) >= margin)
        return float(stats.t.sf((margin - abs(self.value)) / self.error, self.df))


@dataclass(frozen=True)
class Variances:
    """The parts of the variance of a difference of single scores: of seeds, of groups of rows, and of both together."""

    seeds: float
    groups: float
    both: float
    num_groups: int
    is_undecided: bool = False
    """Whether they are those of `undecided`, whose error falls with the rows, not with their square root."""

    def interval(self, value: float, num_seeds: int) -> Interval:
        """Return what the interval around a value is, or would be, with so many seeds.

        The error is that of Hillis 2007 (https://doi.org/10.1002/sim.2532), and so are the degrees of freedom but for
        one thing: there, the shares of the variance are squared, which covers 92 % instead of 95 % at three seeds.
        """
        of_seeds = (self.seeds + self.both / self.num_groups) / num_seeds
        return _interval(value, of_seeds, self.groups / self.num_groups, num_seeds, self.num_groups)


def groups_of(clusters: Sequence[object], most: int = MOST_GROUPS) -> np.ndarray:
    """Divide rows into groups that are left out in turn; rows of one cluster stay together.

    Args:
        clusters: for each row what it shares with others, such as the passage of a question.
        most: most groups; fewer clusters are a group each.

    Returns:
        The number of the group of each row, (rows,). It depends on the clusters alone.
    """
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    order = np.random.default_rng(0).permutation(len(numbers))
    return np.array([order[numbers[cluster]] % most for cluster in clusters])


def without_each(score: Callable[[np.ndarray], float], groups: np.ndarray) -> np.ndarray:
    """Score all rows but those of one group, for each group, (groups,); `score` takes a mask of rows, (rows,)."""
    return np.array([score(groups != group) for group in np.unique(groups)])


def deviations(whole: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Compute what each group adds to a score: jackknife pseudo-values less their mean, (seeds, groups).

    For a mean over rows, such as accuracy, these are the means of the groups; other metrics, such as F1, become means
    in the same way (Tukey 1958; Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17:521).

    Args:
        whole: score of each seed, (seeds,).
        without: the same without each group, (seeds, groups).
    """
    num_groups = without.shape[1]
    pseudo = num_groups * whole[:, None] - (num_groups - 1) * without
    return np.asarray(pseudo - pseudo.mean(1, keepdims=True))


def variances(differences: np.ndarray, of_groups: np.ndarray) -> Variances:
    """Estimate the parts of the variance by a two-way analysis without replication.

    Args:
        differences: of each seed, (seeds,).
        of_groups: `deviations` of the differences, (seeds, groups).
    """
    num_seeds, num_groups = of_groups.shape
    of_both = of_groups - of_groups.mean(0)
    both = float((of_both**2).sum() / ((num_seeds - 1) * (num_groups - 1)))
    groups = float(num_seeds * (of_groups.mean(0) ** 2).sum() / (num_groups - 1))
    seeds = float(num_groups * differences.var(ddof=1))
    if np.ptp(differences) < TIE:
        # A share of few rows is often the same for all seeds by chance, which does not mean that seeds do not differ.
        seeds = both
    # That of the seeds may be below 0; only its sum with `both` is used.
    return Variances((seeds - both) / num_groups, max(0.0, groups - both) / num_seeds, both, num_groups)


def undecided(num_rows: int, num_groups: int) -> Variances:
    """Return the variances of a share whose rows and seeds are all alike, which does not mean that they always are.

    What has not occurred in so many rows has a rate of at most 3 / rows, with 95 % (Hanley and Lippman-Hand 1983,
    https://doi.org/10.1001/jama.1983.03330370053031); two standard errors are taken for it.
    """
    return Variances(0.0, num_groups * (1.5 / num_rows) ** 2, 0.0, num_groups, is_undecided=True)


def over_seeds(differences: np.ndarray) -> Interval:
    """Estimate the mean difference over new seeds on the same test rows: the paired t interval; (seeds,)."""
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return Interval(float(differences.mean()), error, len(differences) - 1)


def over_rows(differences: np.ndarray, of_groups: np.ndarray) -> tuple[float, float]:
    """Bound the mean difference of these very runs on new test rows: the paired bootstrap, by percentiles.

    Koehn 2004, https://aclanthology.org/W04-3250. See `variances` for the arguments.
    """
    drawn = differences.mean() + _draws(of_groups.shape[1]) @ of_groups.mean(0)
    low, high = np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def mcnemar(hits: np.ndarray, baseline: np.ndarray) -> float:
    """Compute the exact p value of "both models are right equally often"; two runs' hits, (rows,), booleans.

    McNemar 1947, https://doi.org/10.1007/BF02295996.
    """
    gained, lost = int((hits & ~baseline).sum()), int((~hits & baseline).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for their number (Holm 1979, https://www.jstor.org/stable/4615733), in the same order."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for done, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def words(intervals: Sequence[Interval], margin: float) -> list[str]:
    """Judge each strategy against the baseline: `better`, `worse`, `equal` (within the margin) or `cannot tell yet`.

    In each of the two families of tests (different, equal) Holm's adjustment keeps the chance of any false word at 5 %.
    A difference that is shown is named, even if it is within the margin.
    """
    different = holm([one.p_different for one in intervals])
    equal = holm([one.p_equal(margin) for one in intervals])
    judged = []
    for one, p_different, p_equal in zip(intervals, different, equal, strict=True):
        if p_different < 1 - LEVEL:
            judged.append("better" if one.value > 0 else "worse")
        else:
            judged.append("equal" if p_equal < 1 - LEVEL else "cannot tell yet")
    return judged


def power(parts: Variances, difference: float, num_seeds: int) -> float:
    """Compute the chance that so many seeds show a true difference, at 5 % for one comparison."""
    expected = parts.interval(difference, num_seeds)
    if not expected.error:
        return 1.0
    least = stats.t.ppf(0.5 + LEVEL / 2, expected.df)
    return float(stats.nct.sf(least, expected.df, difference / expected.error))


def seeds_needed(parts: Variances, difference: float) -> int | None:
    """Find how many seeds show a true difference with 80 % power; None if 100 do not, as the test rows are too few."""
    return next((seeds for seeds in range(2, MOST_SEEDS + 1) if power(parts, difference, seeds) >= POWER), None)


def rows_needed(parts: Variances, difference: float, num_rows: int) -> int:
    """Estimate how many test rows show a true difference with 80 % power, if there is no end of seeds."""
    needed = (stats.norm.ppf(0.5 + LEVEL / 2) + stats.norm.ppf(POWER)) / difference
    times = parts.groups / parts.num_groups * needed**2
    return int(np.ceil(num_rows * (times**0.5 if parts.is_undecided else times)))


def _interval(value: float, of_seeds: float, of_groups: float, num_seeds: int, num_groups: int) -> Interval:
    variance = of_seeds + of_groups
    if variance <= 0:
        return Interval(value, 0.0, num_seeds - 1)
    df = variance / (of_seeds / (num_seeds - 1) + of_groups / (num_groups - 1))
    return Interval(value, float(variance**0.5), float(df))


@lru_cache
def _draws(num_groups: int) -> np.ndarray:
    """Draw how often each group is taken, as a share, (draws, groups)."""
    counts = np.random.default_rng(0).multinomial(num_groups, np.full(num_groups, 1 / num_groups), DRAWS)
    return np.asarray(counts / num_groups)
