"""A run on disk: ``spec.json``, ``events.jsonl``, ``state.json``, ``result/``.

The directory is the only place from which anybody learns about a run; processes never ask each
other. Every change of state happens under the run's file lock.
"""

import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from influence_core import home
from influence_core.errors import UserError
from influence_core.events import Event, Progress, Step, Written, parse
from influence_core.runs import heartbeat, locks, registry
from influence_core.runs.state import NEXT, RunRecord, RunState, State, TransitionError, now, queue_order

_ID = re.compile(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}")  # a version 4 UUID: no path in it can escape
_TAIL = 65_536  # bytes from the end of events.jsonl in which the last progress is looked for

GONE = "the process that ran it ended without a word (killed, out of memory, or a restart): start the run again"


class RunDirectory:
    """One run's folder; objects hold nothing open and may be used from any thread or process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @property
    def result(self) -> Path:
        """Folder that the run may write its artefacts into."""
        return self.path / "result"

    @property
    def heartbeat_file(self) -> Path:
        """File whose age and lock say whether the run lives."""
        return self.path / "heartbeat"

    @classmethod
    def create(cls, spec: registry.AnyRunSpec, what: str = "", who: str = "", priority: int = 0) -> "RunDirectory":
        """Make a pending run; it appears on disk complete. Raises `UserError` for a bad spec."""
        spec = registry.as_spec(spec)
        value: dict[str, Any] = spec if isinstance(spec, dict) else spec.model_dump(mode="json")
        workspace = value.get("workspace")
        record = RunRecord(
            id=uuid.uuid4().hex,
            kind=registry.kind_of(spec),
            workspace=None if workspace is None else str(workspace),
            what=what,
            who=who,
            priority=priority,
            created=now(),
        )
        runs = home.folder("runs")
        draft = cls(runs / f".{record.id}")
        draft.result.mkdir(parents=True, mode=0o700)
        home.write_json(draft.path / "spec.json", value)
        (draft.path / "events.jsonl").touch()
        draft._write(record)
        draft.path.rename(runs / record.id)
        return cls(runs / record.id)

    @classmethod
    def open(cls, run_id: str) -> "RunDirectory":
        """Open a run by id; raises `UserError` if the id is malformed or unknown."""
        if not _ID.fullmatch(run_id):
            raise UserError(f"run {run_id!r}: an id is 32 hexadecimal digits of a random UUID; see the list of runs")
        path = home.folder("runs") / run_id
        if not path.is_dir():
            raise UserError(f"run {run_id}: there is none with this id; see the list of runs")
        return cls(path)

    @classmethod
    def all(cls) -> "list[RunDirectory]":
        """Return every run's directory, in no order."""
        return [cls(path) for path in home.folder("runs").iterdir() if _ID.fullmatch(path.name)]

    @classmethod
    def pending(cls) -> "list[RunDirectory]":
        """Return the runs that wait, first in the queue first."""
        waiting: list[tuple[RunRecord, RunDirectory]] = []
        for run in cls.all():
            with suppress(FileNotFoundError):  # deleted while we looked
                waiting.append((run.record(), run))
        waiting.sort(key=lambda pair: queue_order(pair[0]))
        return [run for record, run in waiting if record.state == "pending"]

    @classmethod
    def list_runs(cls) -> list[RunState]:
        """Return the states of all runs, newest first."""
        found: list[tuple[RunDirectory, RunRecord]] = []
        for run in cls.all():
            with suppress(FileNotFoundError):  # deleted while we looked
                found.append((run, run.reconcile()))
        waiting = sorted((record for _, record in found if record.state == "pending"), key=queue_order)
        positions = {record.id: place for place, record in enumerate(waiting, start=1)}
        states = [run._describe(record, positions.get(record.id)) for run, record in found]
        return sorted(states, key=lambda state: (state.created, state.id), reverse=True)

    def spec(self) -> registry.AnyRunSpec:
        """Read what was asked for; a dictionary for kinds that ``specs`` does not know."""
        value: dict[str, Any] = home.read_json(self.path / "spec.json")
        return registry.as_spec(value)

    def record(self) -> RunRecord:
        """Read ``state.json`` as it is written, without looking at the heartbeat."""
        return RunRecord.model_validate_json((self.path / "state.json").read_bytes())

    def state(self) -> RunState:
        """Return the run's state now; a running run whose process is gone is written down as crashed."""
        record = self.reconcile()
        position = None
        if record.state == "pending":
            position = 1 + sum(queue_order(run.record()) < queue_order(record) for run in self.pending())
        return self._describe(record, position)

    def reconcile(self, at_once: bool = False) -> RunRecord:
        """Write down ``crashed`` if the run should be running and is not; return the record.

        ``at_once`` does not wait for the announced interval: for who has just ended the worker.
        """
        record = self.record()
        if not self._gone(record, at_once):
            return record
        with locks.locked(self.path / "lock"):
            record = self.record()
            if self._gone(record, at_once):
                beat = self.heartbeat_file.stat().st_mtime if self.heartbeat_file.exists() else time.time()
                last = datetime.fromtimestamp(beat, UTC)
                # a file system's clock may be some milliseconds behind
                record = self._move(record, "crashed", ended=max(last, record.started or last), message=GONE)
        return record

    def is_held(self) -> bool:
        """Say whether a living process runs it."""
        return locks.is_held(self.heartbeat_file)

    def claim(self, worker: str | None = None) -> RunRecord:
        """Take a pending run, exactly once; raises `TransitionError` in any other state."""
        with locks.locked(self.path / "lock"):
            record = self.record()
            self._check(record, "running")
            started = now()
            self.heartbeat_file.touch(mode=0o600)  # its age counts from here
            return self._move(record, "running", started=started, worker=worker, announced=heartbeat.announced())

    def finish(self) -> RunRecord:
        """Mark a running run as finished."""
        return self._end("finished")

    def fail(self, message: str) -> RunRecord:
        """Mark a running run as failed, with the reason in one line."""
        return self._end("failed", message)

    def kill(self, stop: Callable[[], None] | None = None) -> RunRecord:
        """Mark a pending or running run as killed.

        ``stop`` is called first, while no other change of state can happen: what ends the process
        goes there, so that it cannot hit the run that comes next.
        """
        with locks.locked(self.path / "lock"):
            record = self.record()
            self._check(record, "killed")
            if stop is not None:
                stop()
            return self._move(record, "killed", ended=now())

    def append(self, event: Event) -> None:
        """Add an event of a running run as one flushed line; raises `TransitionError` in other states."""
        record = self.record()
        if record.state != "running":
            raise TransitionError(f"run {self.id} is {record.state}: it takes no more events")
        # json.dumps, because pydantic would write a loss that is not a number as null
        line = json.dumps(event.model_dump(mode="json"), ensure_ascii=False) + "\n"
        with (self.path / "events.jsonl").open("ab") as file:
            file.write(line.encode())

    def events(self, offset: int = 0) -> tuple[list[Written], int]:
        """Read the whole lines after a byte offset; returns them and the offset to go on from."""
        with (self.path / "events.jsonl").open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be half-written
        return [parse(line) for line in whole.splitlines()], offset + len(whole)

    def request_cancel(self, grace: float = 10.0) -> None:
        """Ask the run to stop at its next event; after ``grace`` seconds its worker may be ended."""
        home.write_json(self.path / "cancel", {"deadline": time.time() + grace})

    def cancel_requested(self) -> bool:
        """Say whether somebody asked the run to stop."""
        return (self.path / "cancel").exists()

    def cancel_overdue(self) -> bool:
        """Say whether the grace period of a request to stop is over."""
        return self.cancel_requested() and time.time() > float(home.read_json(self.path / "cancel")["deadline"])

    def wait(self, timeout: float = math.inf) -> RunState:
        """Wait until the run is over, at most ``timeout`` seconds; returns its state then, over or not."""
        deadline = time.monotonic() + timeout
        while not self.reconcile().is_over and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.state()

    def delete(self) -> None:
        """Remove a run that is over, with its result; raises `UserError` for one that is not."""
        record = self.reconcile()
        if not record.is_over:
            raise UserError(f"run {self.id} is {record.state}: cancel it before deleting it")
        hidden = self.path.with_name(f".{self.id}")  # gone from the list at once
        os.replace(self.path, hidden)
        shutil.rmtree(hidden)

    def _gone(self, record: RunRecord, at_once: bool) -> bool:
        silent = at_once or heartbeat.age(self.heartbeat_file) > (record.announced or 0.0)
        return record.state == "running" and silent and not self.is_held()

    def _check(self, record: RunRecord, to: State) -> None:
        if to not in NEXT[record.state]:
            raise TransitionError(f"run {self.id} is {record.state}: it cannot become {to}")

    def _end(self, to: State, message: str = "") -> RunRecord:
        with locks.locked(self.path / "lock"):
            return self._move(self.record(), to, ended=now(), message=message)

    def _move(self, record: RunRecord, to: State, **changes: Any) -> RunRecord:
        self._check(record, to)
        moved = record.model_copy(update={"state": to, **changes})
        self._write(moved)
        return moved

    def _write(self, record: RunRecord) -> None:
        home.write_json(self.path / "state.json", record.model_dump(mode="json"))

    def _describe(self, record: RunRecord, position: int | None) -> RunState:
        derived: dict[str, Any] = {"position": position}
        if record.started is not None:
            derived["seconds"] = ((record.ended or now()) - record.started).total_seconds()
            derived |= self._progress()
        if record.state == "running":
            derived["cancelling"] = self.cancel_requested()
            silence = heartbeat.age(self.heartbeat_file)
            if silence > (record.announced or 0.0):  # its process lives, or `reconcile` would have said crashed
                derived["message"] = f"no sign of life for {silence:.0f} s"
        return RunState.model_validate(record.model_dump() | derived)

    def _progress(self) -> dict[str, Any]:
        with (self.path / "events.jsonl").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().split(b"\n")[:-1]  # what follows the last line end is half-written
        for line in reversed(lines):
            try:
                event = parse(line)
            except ValidationError:  # its begin lies outside the window
                continue
            if isinstance(event, Progress):
                return {"phase": event.phase, "done": event.done, "total": event.total, "unit": event.unit}
            if isinstance(event, Step):
                spec = self.spec()
                steps = spec.get("steps") if isinstance(spec, dict) else getattr(spec, "steps", None)
                return {"phase": "step", "done": event.step, "total": steps, "unit": "steps"}
        return {}
