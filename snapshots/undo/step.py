"""What all data steps share: one transaction, its row in ``reinstate.applied``, its tag in the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from snapshots import locks
from snapshots.model import Applied
from snapshots.undo.errors import OutcomeUnknown, StepTaken, UndoBusy, UndoRefused

LOCK_TIMEOUT_S = 5.0


def applied(conn: psycopg.Connection[Any], recovery_id: str, step: str) -> Applied | None:
    """What the database itself says about a data step; ``None``: it did not happen. Any role that reads the journal."""
    row = conn.execute(
        "SELECT plan_hash, xid::text::bigint, at, detail FROM reinstate.applied WHERE recovery_id = %s AND step = %s",
        (recovery_id, step),
    ).fetchone()
    if row is None:
        return None
    return Applied(recovery_id=recovery_id, step=step, plan_hash=row[0], xid=row[1], at=row[2], detail=row[3])


def applied_steps(conn: psycopg.Connection[Any], recovery_id: str, *, prefix: str) -> tuple[Applied, ...]:
    """The applied data steps of a recovery whose names start with ``prefix``, oldest first. Any role that reads the
    journal."""
    rows = conn.execute(
        "SELECT step, plan_hash, xid::text::bigint, at, detail FROM reinstate.applied "
        "WHERE recovery_id = %s AND starts_with(step, %s) ORDER BY at",
        (recovery_id, prefix),
    ).fetchall()
    return tuple(
        Applied(recovery_id=recovery_id, step=r[0], plan_hash=r[1], xid=r[2], at=r[3], detail=r[4]) for r in rows
    )


def already(conn: psycopg.Connection[Any], recovery_id: str, step: str, plan_hash: str) -> Applied | None:
    """The step's earlier application by the same plan, if any; raises :class:`StepTaken` for another plan's."""
    done = applied(conn, recovery_id, step)
    if done is not None and done.plan_hash != plan_hash:
        raise StepTaken(
            f"step {step} of recovery {recovery_id} was already applied by plan {done.plan_hash[:12]}, "
            f"this is plan {plan_hash[:12]}: start a new recovery"
        )
    return done


def tag(conn: psycopg.Connection[Any], recovery_id: str) -> None:
    """Let the journal record this transaction's writes as the recovery's."""
    conn.execute("SELECT set_config('reinstate.run', %s, true)", (recovery_id,))


def record(
    conn: psycopg.Connection[Any], recovery_id: str, step: str, plan_hash: str, detail: Mapping[str, Any]
) -> Applied:
    """Write the step's row, in the transaction of its effect."""
    conn.execute(
        "INSERT INTO reinstate.applied (recovery_id, step, plan_hash, detail) VALUES (%s, %s, %s, %s)",
        (recovery_id, step, plan_hash, Jsonb(detail)),
    )
    done = applied(conn, recovery_id, step)
    assert done is not None  # noqa: S101 - the row was inserted one statement ago
    return done


@contextmanager
def one_transaction(
    conn: psycopg.Connection[Any],
    *,
    snapshot: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Iterator[None]:
    """A transaction of its own on an idle connection; with ``snapshot`` repeatable-read and rolled back at the end.
    Lock time-outs and deadlocks become :class:`UndoBusy`, broken constraints and missing rights
    :class:`UndoRefused`, a broken connection :class:`OutcomeUnknown`."""
    if conn.info.transaction_status is not TransactionStatus.IDLE:
        raise UndoRefused("the connection is in the middle of a transaction: commit it or use another connection")
    try:
        with conn.transaction(force_rollback=snapshot):
            level = sql.SQL("REPEATABLE READ" if snapshot else "READ COMMITTED")
            conn.execute(sql.SQL("SET TRANSACTION ISOLATION LEVEL {}, READ WRITE").format(level))
            conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{int(lock_timeout_s * 1000)}ms",))
            yield
    except (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure) as error:
        raise UndoBusy(
            f"another session holds a lock on the app's tables ({locks.cause(error)}): nothing was changed, try again"
        ) from error
    except errors.IntegrityError as error:
        raise UndoRefused(
            f"constraint {error.diag.constraint_name} of table {error.diag.schema_name}.{error.diag.table_name} "
            "forbids the result: nothing was changed; look at the rows by hand"
        ) from error
    except errors.InsufficientPrivilege as error:
        raise UndoRefused(
            f"role {conn.info.user}: {error.diag.message_primary}: nothing was changed; "
            "run the SQL of the roles command as administrator"
        ) from error
    except psycopg.OperationalError as error:
        if not conn.broken:
            raise
        raise OutcomeUnknown(
            f"database {conn.info.dbname}: the connection broke during the step: "
            "connect again and ask whether the step was applied"
        ) from error
