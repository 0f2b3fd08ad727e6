"""The supervisor of the child processes that run items of a plan.

It never runs user code and stays single-threaded. It claims tokens, deals their items to its children in blocks,
beats, starts children that died again, and blames an item only for a death that it saw itself.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from psyrun.child import DONE, FAILED, MOST_BLOCK, POSITION, RECORDING, Child
from psyrun.claims import Beat, Observer, Token, beat_seconds, new_worker_id, ttl_seconds
from psyrun.durability import Durability
from psyrun.errors import PsyrunError, TaskError, TemporaryError, trouble
from psyrun.holdings import Holdings
from psyrun.logbook import Logbook
from psyrun.orders import Orders
from psyrun.ownparts import OwnParts
from psyrun.plan import Plan
from psyrun.processes import (
    BLOCK,
    FINISHED,
    PROBLEM,
    RAISED,
    READY,
    RECORDING_GRACE,
    die_with_parent,
    end_family,
    end_group,
    ending,
    has_news,
    reap,
    receive,
    send,
    wake_up_on,
)
from psyrun.streak import Streak
from psyrun.terms import NO_JOB, Deadline, Quota, Terms
from psyrun.watch import TIME_LIMIT, ChildProcess, Counters, Watch, shared_keys
from psyrun.workdir import Workdir

_BLOCK_SECONDS = 0.05
_MOST_STARTS = 3
_GRACE = 0.5
_MOMENT = 0.1


class Supervisor:
    """Runs items of one plan until nothing is left to claim.

    Parameters
    ----------
    workdir : Workdir
    plan : Plan
    n_children : int
        How many items run at a time.
    counters : array of int64, shape (n_children, 5)
        Shared memory that shows what the children do.
    notify : int
        Descriptor to tell finished chunks to (-1: to nobody), as lines ``done FIRST LAST``, and in the end how many
        items it ran and how many of them failed, as ``ran N N_FAILED``.
    observer : Observer, optional
        Who watched other workers before.
    terms : Terms
        What it keeps to if it is a job of a queue.
    deadline : Deadline, optional
    quota : Quota, optional
    """

    def __init__(
        self,
        workdir: Workdir,
        plan: Plan,
        n_children: int,
        counters: Counters,
        notify: int = -1,
        observer: Observer | None = None,
        terms: Terms = NO_JOB,
        deadline: Deadline | None = None,
        quota: Quota | None = None,
    ):
        self.workdir = workdir
        self.plan = plan
        self.id = new_worker_id()
        self._n_children = n_children
        self._counters = counters
        self._notify = notify
        self._terms = terms
        self._deadline = deadline or Deadline(terms.seconds)
        self._quota = quota or Quota()
        self._beat = Beat(workdir.beats, self.id, beat_seconds(), self._about())
        observer = observer or Observer(workdir.beats, ttl_seconds())
        self._holdings = Holdings(workdir, plan, self.id, observer, self._sync, self._tell_done, terms.covers)
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, ChildProcess] = {}
        self._starts, self._starts_failed = [0] * n_children, 0
        self._durability = Durability()
        self.seconds_per_item = 0.0  # before it has finished one
        went_well = bool(plan.content.get("n_done"))
        self._streak = Streak(n_children, went_well, plan.content.get("early_stop", True))
        self._stop = False
        self._status, self.problem = 0, ""
        self._parts = OwnParts(workdir, plan, self.id, terms.rung)
        self._log = Logbook(workdir.logs / f"{plan.id}-{self.id}.log")
        self._orders = Orders(workdir, plan, self._log.note)

    def run(self) -> int:
        """Work; return the exit status: 0 nothing left to claim, 1 stopped early, 75 trouble, 130 told to stop."""
        self._parent = os.getppid()
        self._keys = shared_keys(self._n_children)
        self._watch = Watch(self.plan, self._counters, self._keys, self._terms)
        try:
            self.plan.check_version()
            self._beat.beat(self._news)
            self._wakeup = wake_up_on(self._handlers(), self._selector)
            if self._finds_work():
                for number in range(self._n_children):
                    self._start(number)
            while not self._stop and self._children:
                if self._beat.overdue() > ttl_seconds():  # a stopped process, or a suspended laptop
                    self._holdings.check_still_ours()
                self._beat.beat(self._news)
                self._durability.sync_in_time()
                self._log.trim()
                for ready, _ in self._selector.select(self._pause()):
                    if ready.data is None:
                        self._wakeup[0].recv(4096)
                    else:
                        self._hear(ready.data)
                for child in self._watch.overdue(self._children.values()):
                    end_family(child.pid)
                self._bury_the_dead()
                if self._deadline.is_over():
                    self._give_up_the_longest()
                    break
                self._holdings.share(self._pace())
                self._deal()
                self._holdings.finish()  # now that its children are at work again
                if self._is_over():
                    self._holdings.let_go()
                if os.getppid() != self._parent:
                    self._stop = True
        except PsyrunError as error:
            self._report(error)
        except OSError as error:
            self._report(trouble(error.filename or self.workdir.path, error))
        finally:
            self._shut_down()
        return 130 if self._stop else self._status

    def _handlers(self) -> dict[int, Callable[[], object]]:
        """Return what signals mean. That a child ended wakes up, too: a pipe stays open if the child had children."""
        stop = self._told_to_stop
        return {
            signal.SIGTERM: stop,
            signal.SIGINT: stop,
            signal.SIGUSR1: self._deadline.warn,
            signal.SIGCHLD: lambda: None,
        }

    def _told_to_stop(self) -> None:
        self._stop = True

    def _report(self, error: PsyrunError) -> None:
        self._status, self.problem = error.exit_code, str(error)
        self._tell(f"problem {error.exit_code} {json.dumps(str(error))}")

    def _tell(self, line: str) -> None:
        if self._notify >= 0:
            try:
                os.write(self._notify, line.encode() + b"\n")
            except BrokenPipeError:
                self._stop = True

    def _tell_done(self, token: Token) -> None:
        self._tell(f"done {token.first} {token.last}")

    # Children

    def _start(self, number: int) -> None:
        """Fork a child, with a part of its own."""
        count = self._starts[number]
        self._starts[number] += 1
        part, path = self._parts.new(number, count)
        ours, theirs = socket.socketpair()
        self._counters[number, [POSITION, RECORDING]] = -1, 0
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_child(number, part, ours, theirs, me)
        theirs.close()
        child = ChildProcess(number, pid, ours, part, path)
        self._children[number] = child
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _about(self) -> dict[str, Any]:
        """Return what the heartbeat tells of the worker from the start."""
        return {"plan": self.plan.id, "job": self._terms.job, "token": self._terms.token, "since": time.time()}

    def _news(self) -> dict[str, Any]:
        """Return what the heartbeat tells each time: the positions in hand, for how many seconds, and counts."""
        now = time.monotonic()
        hand = [(c.position, round(now - c.since, 1)) for c in self._children.values() if c.work and c.position >= 0]
        return {"hand": hand, "n_finished": int(self._counters[:, DONE].sum()), "children": self._n_children}

    def _is_over(self) -> bool:
        """Whether no further item is begun here: for want of time, or because somebody said so."""
        short = self._deadline.is_short(self.seconds_per_item)
        return short or self._quota.is_used_up() or self._orders.drained

    def _finds_work(self) -> bool:
        """Whether there is something to claim, at once, when others share what they hold, or when a pause is over."""
        if self._is_over() or self._orders.waits():
            return not self._is_over()
        while not (found := self._holdings.more()) and self._holdings.expects() and not self._stop:
            time.sleep(_MOMENT)
        return found

    def _pace(self) -> float:
        """Return how many seconds an item takes here, as far as is known; no less than those in hand did already."""
        now = time.monotonic()
        in_hand = [now - c.since for c in self._children.values() if c.work is not None and c.position >= 0]
        return max([self.seconds_per_item, *in_hand])

    def _pause(self) -> float:
        """Return for how many seconds there is nothing to do, unless something happens."""
        idle = any(child.ready and child.work is None for child in self._children.values())
        most = _MOMENT if idle and self.plan.balances else 1.0
        return min(most, self._beat.due(), self._deadline.due(), (self._watch.timeout or 10.0) / 10)

    def _be_child(self, number: int, part: int, ours: socket.socket, theirs: socket.socket, parent: int) -> None:
        try:
            os.setpgid(0, 0)  # so that what user code starts can be ended with it
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number_ in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
                signal.signal(number_, signal.SIG_DFL)
            ours.close()
            for other in self._children.values():
                other.channel.close()
                os.close(other.part)
            self._log.redirect()
            if self._notify >= 0:
                os.close(self._notify)
            os.environ["PSYRUN_CHILDREN"] = str(self._n_children)
            Child(self.plan, number, theirs, part, self._counters[number], self._keys[number]).run()
        finally:
            os._exit(70)

    def _hear(self, child: ChildProcess) -> None:
        """Take in a message of a child, or that it closed its end."""
        if self._children.get(child.number) is not child:
            return  # buried since
        message = receive(child.channel)
        if message is None:
            self._bury(child, child.wait())
            return
        kind, content = message
        if kind == READY:
            child.ready = True
        elif kind == FINISHED:
            self._starts_failed = 0
            seconds, succeeded = content
            self._streak.succeeded(succeeded)
            self._finished(child, seconds)
        elif kind == RAISED:
            succeeded, *failure = content
            self._streak.succeeded(succeeded)
            self._streak.failed(*failure)
        elif kind == PROBLEM:
            status, text = content
            raise (TaskError if status == TaskError.exit_code else TemporaryError)(text)

    def _finished(self, child: ChildProcess, seconds: float) -> None:
        if child.work is not None:
            holding, (first, last) = child.work
            child.work = None
            each = seconds / (last - first + 1)
            self.seconds_per_item = 0.5 * ((self.seconds_per_item or each) + each)
            self._holdings.give_back(holding, (first, last))

    def _bury_the_dead(self) -> None:
        """See to children that ended while something they started keeps their pipe open."""
        for child in list(self._children.values()):
            # What it said before it ended comes first.
            if child.has_ended() and child.ended is not None and not has_news(child.channel):
                self._bury(child, child.ended)

    def _bury(self, child: ChildProcess, status: int) -> None:
        """See to a child that ended by itself: charge the item in hand, deal the rest of its block again."""
        end_group(child.pid)
        self._forget(child)
        if child.work is not None:
            holding, block = child.work
            failure = self._watch.blamed(child, status)
            if self._counters[child.number, POSITION] < 0:  # before the first of its items
                self._starts_failed += 1
            if failure is not None:
                self._parts.supervisors().fail(failure)
                self._counters[child.number, [DONE, FAILED]] += 1
            rest = self._holdings.not_on_record(block, [child.path])
            self._quota.begun(-sum(b - a + 1 for a, b in rest))
            self._holdings.give_back(holding, block, rest)
            if failure is not None and failure.type != TIME_LIMIT:  # to go on after such is what the limit is for
                self._streak.failed(failure.type, failure.where, failure.message)
        else:
            self._starts_failed += 1
        os.close(child.part)
        if self._starts_failed >= _MOST_STARTS:
            raise TemporaryError(
                f"processes end before they run an item ({ending(status)}); see {self._log.path} "
                f"or: psy-doit logs {self.plan.content['task']}"
            )
        if not self._is_over() and (self._orders.waits() or self._holdings.more()):
            self._start(child.number)

    def _forget(self, child: ChildProcess) -> None:
        self._selector.unregister(child.channel)
        child.channel.close()
        del self._children[child.number]
        self._durability.close(child.part)

    def _deal(self) -> None:
        """Give every idle child a block; end children when nothing is left for them."""
        for child in list(self._children.values()):
            if not child.ready or child.work is not None:
                continue
            over, waits = self._is_over(), self._orders.waits()
            child.work = None if over or waits else self._holdings.take(self._block_size(), self._n_children)
            if child.work is not None:
                holding, block = child.work
                self._quota.begun(block[1] - block[0] + 1)
                holding.parts.add(child.part)
                self._durability.written(child.part)
                with suppress(ConnectionError):
                    send(child.channel, BLOCK, block)
            elif over or not (waits or self._holdings or self._holdings.expects()):
                self._dismiss(child)

    def _block_size(self) -> int:
        """Return how many items take about 50 ms, as far as they may be begun; one at first."""
        if self.seconds_per_item <= 0:
            return 1
        return int(min(MOST_BLOCK, _BLOCK_SECONDS / self.seconds_per_item, self._quota.most(self._n_children)))

    def _dismiss(self, child: ChildProcess) -> None:
        """End a child that has nothing left to do."""
        self._forget(child)
        if child.ended is None:
            os.waitpid(child.pid, 0)
        end_group(child.pid)
        os.close(child.part)

    # Durability and the end

    def _sync(self, parts: set[int]) -> None:
        self._durability.sync(parts, {c.part for c in self._children.values() if c.work is not None})

    def _give_up_the_longest(self) -> None:
        """Record a failure of each item that had most of the job's time, which is over: another such job is no help."""
        for child in self._children.values():
            failure = self._watch.too_long(child, self._deadline)
            if failure is not None and child.work is not None:
                self._parts.supervisors().fail(failure)
                (holding, block), child.work = child.work, None
                self._holdings.give_back(holding, block, self._holdings.not_on_record(block, [child.path]))

    def _shut_down(self) -> None:
        """End all children, hand back what is not finished, and leave."""
        signal.set_wakeup_fd(-1)
        for child in self._children.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        now = time.monotonic()
        for child in self._children.values():
            if child.ended is None:
                recording = self._counters[child.number, RECORDING]
                reap(child.pid, now + (RECORDING_GRACE if recording else _GRACE))
            end_group(child.pid)
            with suppress(OSError):
                os.fsync(child.part)
        self._holdings.hand_back()
        with suppress(OSError):
            self._beat.stop()
        self._log.close()
        done, failed = self._counters[:, [DONE, FAILED]].sum(axis=0)
        self._tell(f"ran {done} {failed}")
