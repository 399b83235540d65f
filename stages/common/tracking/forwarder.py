"""From the spool to the store, in a thread of its own: while the run goes on, and for runs whose
process died.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from stages.common.runtime.logs import log
from stages.common.tracking import event_log
from stages.common.tracking.event_log import Event, Spool

FLUSH_SECONDS, RETRY_SECONDS = 1.0, 30.0
REPLAY = "python -m stages.common.tracking.mlflow_sender replay"


class Sender(Protocol):
    """What brings events to the store; sending one twice must leave it there once."""

    def send(self, events: Spool, batch: list[Event]) -> None:
        """Send events of one kind, which belong to the run of spool `events`."""


class Forwarder(threading.Thread):
    """Sends one run's events while it goes on, and once the spools that dead processes left
    behind.
    """

    def __init__(self, events: Spool, connect: Callable[[], Sender]) -> None:
        super().__init__(name="tracking", daemon=True)
        self._events, self._connect = events, connect
        self._closing = threading.Event()

    def run(self) -> None:
        """Send until the run is closed and everything sent, or until the last attempt after closing
        fails.
        """
        sender: Sender | None = None
        pause, warned = 0.0, False
        while True:
            closing = self._closing.wait(pause)
            try:
                first, sender = sender is None, sender or self._connect()
                if drain(sender, self._events):
                    self._events.remove()
                    return
                if first:
                    replay(sender, self._closing)
                pause = FLUSH_SECONDS
            except Exception as error:  # the boundary: a store may fail in any way, and training goes on
                pause = min(RETRY_SECONDS, 2 * pause + 1)
                if not warned:
                    log.warning(
                        "tracking waits in %s, to be sent later (or by `%s`): %s", event_log.FOLDER, REPLAY, error
                    )
                warned = True
                if closing:
                    self._events.release()
                    return

    def close(self, seconds: float) -> None:
        """Wait at most `seconds` for the rest to be sent; what is left stays in the spool."""
        self._closing.set()
        self.join(seconds)
        if self.is_alive():
            log.warning("the MLflow store is slow: what it has not yet is sent later (or by `%s`)", REPLAY)


def next_batch(events: Spool) -> tuple[list[Event], int]:
    """Return the next events that one request carries (a run of metrics, or a single other), and
    the offset then.
    """
    batch: list[Event] = []
    offset = int(events.state["offset"])
    for event, after in events.read(offset):
        if batch and (event["kind"] != "metrics" or batch[0]["kind"] != "metrics"):
            break
        batch.append(event)
        offset = after
    return batch, offset


def drain(sender: Sender, events: Spool, stop: threading.Event | None = None) -> bool:
    """Send what the spool holds from its persisted offset on; return whether the run has ended
    there.
    """
    while not (stop and stop.is_set()):
        batch, offset = next_batch(events)
        if not batch:
            break
        sender.send(events, batch)
        ended = events.state.get("ended") or batch[-1]["kind"] == "end"
        events.save_state(offset=offset, ended=ended)
    return bool(events.state.get("ended"))


def finish_killed(sender: Sender, events: Spool) -> None:
    """Mark the run of a process that died without a word."""
    if "run_id" in events.state:
        last = int(events.path.stat().st_mtime * 1000)
        values = {"error": "the process was killed"}
        sender.send(events, [{"kind": "end", "time": last, "status": "KILLED", "values": values}])


def replay(sender: Sender, stop: threading.Event | None = None) -> int:
    """Send the spools that dead processes left behind; return how many were sent whole."""
    sent = 0
    for events in event_log.leftovers():
        try:
            if not drain(sender, events, stop):
                if stop and stop.is_set():
                    break
                finish_killed(sender, events)
            events.remove()
            sent += 1
        finally:
            events.release()
    return sent
