"""Processes of one machine: messages between two of them, and how they end."""

from __future__ import annotations

import json
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

READY, BLOCK, FINISHED, RAISED, PROBLEM = range(5)
"""Kinds of messages between a supervisor and its children."""

UNIT_OF_RUSAGE = 1 if sys.platform == "darwin" else 1024
"""Bytes that a ru_maxrss of 1 means."""

RECORDING_GRACE = 60.0
"""Seconds that a process gets to record what is finished, when it is told to end."""

_HEAD = struct.Struct("<BI")


def send(channel: socket.socket, kind: int, content: Any = None) -> None:
    """Send one message."""
    payload = json.dumps(content).encode()
    channel.sendall(_HEAD.pack(kind, len(payload)) + payload)


def has_news(channel: socket.socket) -> bool:
    """Whether there is something to receive; `select` takes no descriptors above 1023."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(0))


def receive(channel: socket.socket) -> tuple[int, Any] | None:
    """Return the next message, or None when the other end is gone."""
    head = _exactly(channel, _HEAD.size)
    if head is None:
        return None
    kind, size = _HEAD.unpack(head)
    payload = _exactly(channel, size)
    return None if payload is None else (kind, json.loads(payload))


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            more = channel.recv(size - len(data))
        except ConnectionError:
            return None
        if not more:
            return None
        data += more
    return data


def wake_up_on(
    handlers: Mapping[int, Callable[[], object]], selector: selectors.BaseSelector
) -> tuple[socket.socket, socket.socket]:
    """Call functions when signals come, and end a wait of the selector: it would go on otherwise.

    Returns
    -------
    sockets : tuple of socket
        To be kept. The first is registered, without data; what comes is to be read from it.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno())
    selector.register(ours, selectors.EVENT_READ, None)
    for number, handler in handlers.items():
        signal.signal(number, lambda *_, handler=handler: handler())
    return ours, theirs


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the system signal this process when its parent ends, and end now if it has already.

    Linux only; elsewhere parents are polled.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def peak_memory() -> int:
    """Return the most bytes that this process used, or, if that is more, one that it started and waited for."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return max(usage.ru_maxrss for usage in usages) * UNIT_OF_RUSAGE


def ending(status: int) -> str:
    """Return how a process ended, in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return next((s.name for s in signal.Signals if s == number), f"signal {number}")
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def end_group(pid: int) -> None:
    """End what a child started and left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of what the processes below this one leave behind, in sessions of their own too. Linux only."""
    if sys.platform == "linux":
        import ctypes

        pr_set_child_subreaper = 36  # prctl(2)
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def wait_for(pid: int) -> int:
    """Return the wait status of a child process when it has ended; see to orphans that end before."""
    while True:
        found, status = os.waitpid(-1, 0)
        if found == pid:
            return status


def end_family(pid: int) -> None:
    """Kill a child process that was not waited for, and what it started, in sessions of their own too."""
    family = [pid]
    for member in family:
        with suppress(OSError):
            for thread in Path(f"/proc/{member}/task").iterdir():
                family += map(int, (thread / "children").read_text().split())
    for member in family:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)


def end_orphans() -> None:
    """Kill all processes below this one, generation by generation: killing one makes orphans of its children."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    with suppress(OSError):
        while pids := children.read_text().split():
            for pid in map(int, pids):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def reap(pid: int, deadline: float) -> None:
    """Wait for a process until a moment of the monotonic clock, then kill it."""
    while time.monotonic() < deadline:
        found, _ = os.waitpid(pid, os.WNOHANG)
        if found:
            return
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
