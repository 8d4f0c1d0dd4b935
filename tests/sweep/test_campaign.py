"""Campaign: which runs the cells of a report become, in which folders, at which rates."""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from skipless.errors import InputError
from skipless.recipes import Recipe, table1
from skipless.sweep import Campaign, Job, campaign, rates


class OneCell(NamedTuple):
    row: str

    @property
    def slug(self) -> str:
        return self.row


CELLS = (OneCell("skip"), OneCell("skipless"))


def recipe(cell: OneCell, seed: int) -> Recipe:
    made = table1("digits", "skip" if cell.row == "skip" else "skipless", "adamw", seed=seed)
    return made.with_(optimizer__lr=1e-3)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What was to be run. A run scores 100 times its learning rate; a skipless one diverges above 1e-3."""
    made: list[Job] = []

    def run_jobs(given: list[Job], **_: object) -> None:
        for job in given:
            diverged = "skipless" in job.labels and job.recipe.optimizer.lr > 1e-3
            job.state = "diverged" if diverged else "done"
            job.latest = {"top1": 100 * job.recipe.optimizer.lr}
        made.extend(given)

    monkeypatch.setattr(campaign, "run_jobs", run_jobs)
    monkeypatch.setattr(rates, "run_jobs", run_jobs)
    return made


def campaign_in(out: Path) -> Campaign:
    return Campaign(out, recipe, lambda cell: (cell.row,), lambda made: made.fit.seed + 7)


def test_every_seed_has_its_folder_and_the_rate_of_its_cell(tmp_path: Path, jobs: list[Job]) -> None:
    folders = campaign_in(tmp_path).train(CELLS, 2, {CELLS[1]: {0.5: 90.0, 0.1: 80.0, 0.9: None}})
    assert folders == {cell: tuple(tmp_path / "runs" / f"{cell.slug}-seed{seed}" for seed in (0, 1)) for cell in CELLS}
    assert [job.labels for job in jobs] == [(cell.row, f"seed {seed}") for cell in CELLS for seed in (0, 1)]
    assert [job.recipe.fit.seed for job in jobs] == [0, 1, 0, 1]
    assert [job.steps for job in jobs] == [7, 8, 7, 8]
    assert [job.recipe.optimizer.lr for job in jobs] == [1e-3, 1e-3, 0.5, 0.5]
    assert [job.out for job in jobs] == [folder for one in folders.values() for folder in one]


def test_the_best_rate_is_found_on_what_is_held_out(tmp_path: Path, jobs: list[Job]) -> None:
    held_out = partial(Recipe.with_, data__holdout=200)
    found = campaign_in(tmp_path).tune(CELLS, (1.0, 10.0, 10.0), held_out)
    assert found == {CELLS[0]: {1e-3: 0.1, 1e-2: 1.0}, CELLS[1]: {1e-3: 0.1, 1e-2: None}}
    assert {job.recipe.data.holdout for job in jobs} == {200}
    assert {job.recipe.fit.seed for job in jobs} == {campaign.TUNING_SEED}
    assert [job.out for job in jobs][:2] == [tmp_path / "tuning" / f"skip-lr{rate}" for rate in ("0.001", "0.01")]
    scores = json.loads((tmp_path / "tuning.json").read_text())
    assert [one["cell"] for one in scores] == ["skip", "skipless"]
    assert scores[1]["top1"] == {"0.001": 0.1, "0.01": None}


def test_a_cell_that_diverges_at_every_rate_is_refused_or_keeps_the_lowest(tmp_path: Path, jobs: list[Job]) -> None:
    factors = (10, 20)
    with pytest.raises(InputError, match="skipless: every learning rate"):
        campaign_in(tmp_path).tune(CELLS, factors, lambda made: made)
    found = campaign_in(tmp_path).tune(CELLS, factors, lambda made: made, all_may_diverge=True)
    del jobs[:]
    campaign_in(tmp_path).train(CELLS, 1, found)
    assert [job.recipe.optimizer.lr for job in jobs] == [0.02, 0.01]


def test_cells_with_the_same_labels_are_no_campaign(tmp_path: Path, jobs: list[Job]) -> None:
    alike = Campaign(tmp_path, recipe, lambda _: ("one name",), lambda _: 1)
    with pytest.raises(AssertionError, match="labels"):
        alike.tune(CELLS, (1.0,), lambda made: made)
    assert not jobs
