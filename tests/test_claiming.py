"""Many workers claim the tokens of one plan: none waits for the others, and none overlooks what is open."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.claims import OPEN, Claims, Observer, Token
from psyrun.holdings import Holdings
from psyrun.plan import Plan
from psyrun.run import Choices, Run
from psyrun.tasks import load_task
from psyrun.workdir import Workdir

A, B = "a" * 16, "b" * 16

TASK = """
    import psyrun
    pspace = psyrun.Param(x=range({n}))
    workdir = {work!r}
    max_jobs = {n}
    min_items = 1
    def execute(x):
        return {{"y": x}}
"""


def planned(path: Path, n: int) -> tuple[Workdir, Plan]:
    """Make a plan of n tokens with one item each."""
    (path / "psy-tasks").mkdir()
    text = textwrap.dedent(TASK).format(n=n, work=str(path / "work"))
    (path / "psy-tasks" / "task_t.py").write_text(text)
    run = Run(load_task("t", path / "psy-tasks"), Choices())
    run.prepare()
    run.split()
    return run.workdir, Plan.read(run.workdir.plans / run.workdir.plan_ids()[-1])


class Tried(Claims):
    """Claims that note what is tried, and before that let another worker be faster."""

    def __init__(self, plan: Plan, rival: Callable[[Token], Any] = lambda token: None):
        super().__init__(plan.path, A, plan.n_work)
        self.tried: list[Token] = []
        self._rival = rival

    def claim(self, token: Token) -> Token | None:
        self.tried.append(token)
        self._rival(token)
        return super().claim(token)


def worker(workdir: Workdir, plan: Plan, claims: Claims, monkeypatch: pytest.MonkeyPatch) -> Holdings:
    """Return what a worker that claims so holds: nothing yet."""
    monkeypatch.setattr(plan, "claims", lambda worker: claims)
    return Holdings(workdir, plan, A, Observer(workdir.beats, 60.0), lambda parts: None, lambda token: None)


def one(holdings: Holdings) -> int | None:
    """Do the next item; return its position, or None if there is none."""
    taken = holdings.take(1, 1)
    if taken is None:
        return None
    holdings.give_back(*taken)
    holdings.finish()
    return taken[1][0]


def rest(holdings: Holdings) -> list[int]:
    """Do all items that are left, in the order in which they come."""
    return list(iter(lambda: one(holdings), None))


@given(stolen=st.sets(st.integers(0, 39)))
def test_what_others_leave_is_done(stolen: set[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whichever tokens others claim between a listing and our try."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        workdir, plan = planned(tmp_path_factory.mktemp("p"), 40)
        theirs = Claims(plan.path, B, plan.n_work)
        claims = Tried(plan, lambda token: theirs.claim(token) if token.first in stolen else None)
        done = rest(worker(workdir, plan, claims, monkeypatch))
        left = {token.first for token in theirs.tokens(OPEN)}
    assert len(done) == len(set(done))
    # What was stepped over, they have not claimed: so it is ours after all, or they have it by now.
    assert left == set()
    assert set(range(40)) - stolen == set(done)


def test_an_old_list_is_not_gone_through_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one item ran, others did hundreds: a try for each would take as long as they did."""
    workdir, plan = planned(tmp_path, 1000)
    claims, theirs = Tried(plan), Claims(plan.path, B, plan.n_work)
    holdings = worker(workdir, plan, claims, monkeypatch)
    assert one(holdings) == 0
    for token in theirs.tokens(OPEN)[:900]:
        assert theirs.claim(token)
    claims.tried.clear()
    assert one(holdings) is not None
    assert len(claims.tried) < 20
    assert len(rest(holdings)) == 98


def test_a_list_that_lags_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems show what is gone for a while: what is open among it is found, and then it is over."""
    workdir, plan = planned(tmp_path, 100)
    claims, theirs = Tried(plan), Claims(plan.path, B, plan.n_work)
    every = claims.tokens(OPEN)
    monkeypatch.setattr(claims, "tokens", lambda state: every if state == OPEN else [])
    for token in every:
        assert token.first == 57 or theirs.claim(token)
    assert rest(worker(workdir, plan, claims, monkeypatch)) == [57]
    assert len(claims.tried) < 3 * len(every)
