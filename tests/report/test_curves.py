import numpy as np
import pytest
from hypothesis import given, strategies as st
from reference.run_folders import write_run

from skipless.report.pictures.curves import band, smooth, thin
from skipless.report.run_records import read_run


@given(st.integers(1, 500), st.integers(1, 60))
def test_thinning_keeps_order_range_and_limit(points: int, limit: int) -> None:
    epoch = np.linspace(0.1, 3.0, points)
    kept_epoch, kept_loss = thin(epoch, 2 * epoch, limit)
    assert kept_epoch.size == min(points, limit)
    assert (np.diff(kept_epoch) > 0).all()
    assert np.allclose(kept_loss, 2 * kept_epoch)  # every group averages both alike
    assert epoch[0] - 1e-12 <= kept_epoch[0]
    assert kept_epoch[-1] <= epoch[-1] + 1e-12


def test_smoothing_is_the_naive_weighted_mean() -> None:
    generator = np.random.default_rng(0)
    epoch, loss, at = np.sort(generator.uniform(0, 5, 40)), generator.normal(size=40), np.linspace(0, 5, 7)
    for position, value in zip(at, smooth(epoch, loss, at, width=0.3), strict=True):
        weights = [np.exp(-((position - x) ** 2) / (2 * 0.3**2)) for x in epoch]
        assert value == pytest.approx(sum(w * y for w, y in zip(weights, loss, strict=True)) / sum(weights))


def test_smoothing_bridges_a_gap_that_no_weight_reaches() -> None:
    value = smooth(np.array([0.0, 100.0]), np.array([1.0, 5.0]), at=np.array([40.0]), width=0.01)
    assert value == pytest.approx([1.0])


def test_a_band_has_the_mean_and_spread_of_its_runs(tmp_path) -> None:
    runs = [read_run(write_run(tmp_path / str(seed), seed=0, final=0.1 + 0.1 * seed)) for seed in range(3)]
    line = band(runs)
    assert line is not None
    assert line.spread is not None
    # A run that ends at `final` loses it where the common decay takes over; by the end the runs are 0.1 apart.
    assert line.spread[-1] == pytest.approx(0.1, rel=0.02)
    assert line.mean[-1] == pytest.approx(0.2, abs=0.1)
    alone = band(runs[:1])
    assert alone is not None
    assert alone.spread is None


def test_sparse_losses_are_drawn_without_stairs(tmp_path) -> None:
    """Ten points of a falling loss: a kernel narrower than their distance would repeat each of them twenty times."""
    line = band([read_run(write_run(tmp_path / "a", steps=10))])
    assert line is not None
    slope = np.abs(np.diff(line.mean))
    assert slope[: slope.size // 2].min() > 0.1 * slope[: slope.size // 2].mean()


def test_no_band_without_points(tmp_path) -> None:
    assert band([]) is None
    assert band([read_run(write_run(tmp_path / "a", steps=1))]) is None
