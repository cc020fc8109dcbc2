"""Where label events live: the table, the engine, and its two kinds of transaction."""

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from influence_core.errors import UserError
from influence_core.home import home

BUSY_MILLISECONDS = 10_000  # how long a writer waits for another's short transaction
_ADVISORY_LOCK = 7_245_118  # any fixed number; PostgreSQL writers queue on it

metadata = MetaData()
label_events = Table(
    "label_events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("event_id", String(32), nullable=False, unique=True),
    Column("at", String(40), nullable=False),
    Column("annotator", Text, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("data_fingerprint", Text, nullable=False),
    Column("example", Text, nullable=False),
    Column("old", Text, nullable=False),
    Column("new", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("note", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("undoes", String(32), nullable=True, unique=True),
    sqlite_autoincrement=True,
)
Index("label_events_by_example", label_events.c.data_fingerprint, label_events.c.example, label_events.c.seq)

# The log is evidence: the database itself refuses to rewrite it.
_INSERT_ONLY = {
    "sqlite": tuple(
        f"CREATE TRIGGER label_events_no_{verb.lower()} BEFORE {verb} ON label_events "
        "BEGIN SELECT RAISE(ABORT, 'label events are insert-only'); END"
        for verb in ("UPDATE", "DELETE")
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION label_events_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'label events are insert-only'; END $$",
        "CREATE TRIGGER label_events_insert_only BEFORE UPDATE OR DELETE ON label_events "
        "FOR EACH ROW EXECUTE FUNCTION label_events_refuse()",
    ),
}


class Database:
    """A SQLite file or a PostgreSQL database holding the events table; safe for threads and processes.

    Raises `UserError` for a URL that cannot serve, a file that is not a database, or a lock held
    longer than 10 s. Writers queue, so sequence numbers become visible in order: what a reader saw
    up to a cursor never changes afterwards.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = _database_url(url)
        self.engine = _engine(self.url)
        self._create()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a read transaction: one consistent view, no write lock."""
        with self._words(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a write transaction that no other writer can be inside of; commit at the end."""
        with self._words(), self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            if self.url.get_backend_name() == "postgresql":
                # Held until commit: otherwise a later sequence number could become visible first.
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            yield connection

    def _create(self) -> None:
        if self.url.get_backend_name() == "sqlite":
            assert self.url.database is not None
            _private_file(Path(self.url.database))
        with self.reading() as connection:
            if inspect(connection).has_table(label_events.name):
                return
        if self.url.get_backend_name() == "sqlite":
            with self._words():
                _use_wal(self.engine)
        with self.writing() as connection:
            if not inspect(connection).has_table(label_events.name):  # another process may have been first
                metadata.create_all(connection, checkfirst=False)
                for statement in _INSERT_ONLY[self.url.get_backend_name()]:
                    connection.execute(text(statement))

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            place = self.url.render_as_string(hide_password=True)
            raise UserError(f"label store {place}: {reason}; nothing was saved, check that it is reachable") from error


def _database_url(url: str | None) -> URL:
    given = url or os.environ.get("INFLUENCE_DATABASE_URL") or None
    if given is None:
        return URL.create("sqlite", database=str(home() / "labels.sqlite"))
    try:
        parsed = make_url(given)
    except ArgumentError:  # the value may hold a password: not repeated
        raise UserError("INFLUENCE_DATABASE_URL is not a database URL: write postgresql://user@host/name") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise UserError(f"label store on {backend!r} is not supported: use sqlite or postgresql")
    if backend == "sqlite" and (parsed.database or ":memory:") == ":memory:":
        raise UserError("label store in memory would be lost: name a file, as in sqlite:////path/labels.sqlite")
    return parsed


def _engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True)
        # No pool: a connection costs little, and none is carried over a fork or into another thread.
        engine = create_engine(url, poolclass=NullPool)
    except (NoSuchModuleError, ImportError) as error:
        raise UserError(f"label store on {url.drivername!r} needs a driver ({error}): pip install psycopg") from None
    event.listen(engine, "connect", _sqlite_connect)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _sqlite_begin says
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    connection.execute("PRAGMA synchronous = FULL")  # a saved label survives a power cut


def _sqlite_begin(connection: Connection) -> None:
    # IMMEDIATE takes the write lock before the compare, so that nobody writes between compare and set.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _private_file(path: Path) -> None:
    """Make the file with mode 0600 if it is not there (SQLite gives -wal and -shm the same mode)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise UserError(f"label store {path} cannot be made: {error.strerror}; give a folder you can write") from None


def _use_wal(engine: Engine) -> None:
    """Switch the file to write-ahead logging, which readers need to go on beside a writer.

    SQLite does not wait on its busy timeout for this switch, so processes that meet here try again.
    """
    raw = engine.raw_connection()
    try:
        deadline = time.monotonic() + BUSY_MILLISECONDS / 1000
        while True:
            try:
                raw.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise UserError(f"label store {engine.url.database}: {error}; try again") from None
                time.sleep(random.uniform(0.01, 0.05))
            except sqlite3.DatabaseError as error:
                raise UserError(f"label store {engine.url.database}: {error}; move that file away") from None
    finally:
        raw.close()
