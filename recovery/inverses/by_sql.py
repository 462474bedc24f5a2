"""An inverse as SQL in the app's database: one transaction with its row in ``reinstate.applied``, so exactly once.

It runs as the recoverer and is tagged with the recovery, so that the journal knows it and an undo of the recovery
takes it back.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import errors, sql

from catalog.models import Compensation
from catalog.placeholders import statements
from recovery.inverses.attempt import Attempt, Given, Result, text
from snapshots.undo.errors import OutcomeUnknown, UndoBusy, UndoRefused
from snapshots.undo.step import one_transaction, record, tag

STEP: Final = "compensate:"
"""Prefix of the steps in ``reinstate.applied``; the rest is the key."""
CHANGES: Final = ("INSERT", "UPDATE", "DELETE", "MERGE")


def attempt(
    connection: psycopg.Connection[Any],
    inverse: Compensation,
    given: Given,
    *,
    key: str,
    recovery: str,
    plan_hash: str,
) -> Attempt:
    """Do it, or read back that it was done. Needs the recoverer's connection, which may be broken afterwards."""
    try:
        with one_transaction(connection):
            return once(connection, inverse, given, step=STEP + key, recovery=recovery, plan_hash=plan_hash)
    except OutcomeUnknown:
        return Attempt(result=Result.LOST, why="the connection to the database broke")
    except UndoBusy:
        return Attempt(result=Result.AGAIN, why="another session holds a lock that it needs", sure=True)
    except errors.QueryCanceled:
        return Attempt(result=Result.AGAIN, why=f"the SQL took longer than {inverse.timeout_s:g} s", sure=True)
    except UndoRefused as error:
        return Attempt(result=Result.REFUSED, why=str(error), sure=True)
    except psycopg.OperationalError:
        raise
    except psycopg.DatabaseError as error:
        # Its text may quote a value.
        return Attempt(result=Result.REFUSED, why=f"the SQL failed: {type(error).__name__} {error.sqlstate}", sure=True)


def once(
    connection: psycopg.Connection[Any],
    inverse: Compensation,
    given: Given,
    *,
    step: str,
    recovery: str,
    plan_hash: str,
) -> Attempt:
    """Inside the transaction: look, do, record."""
    limit = f"{int(inverse.timeout_s * 1000)}ms"
    connection.execute("SELECT set_config('statement_timeout', %s, true)", (limit,))
    # Two processes that both believe the key to be theirs: one waits, and finds the other's row.
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (step,))
    found = connection.execute("SELECT detail FROM reinstate.applied WHERE step = %s", (step,)).fetchone()
    if found is not None:
        return ended(dict(found[0]))
    tag(connection, recovery)
    detail = {"kind": "compensation", **perform(connection, inverse, given)}
    record(connection, recovery, step, plan_hash, detail)
    return ended(detail)


def perform(connection: psycopg.Connection[Any], inverse: Compensation, given: Given) -> dict[str, Any]:
    """Run the statements; what they changed."""
    rows, changes = 0, True
    for statement in statements(str(inverse.sql)):
        # As text of no type: the server takes each value as what it is compared with or written to.
        values = {name: text(given[name]) for name in statement.names}
        cursor = connection.execute(sql.SQL("{}").format(sql.SQL(statement.query)), values)
        rows += max(cursor.rowcount, 0)
        changes = changes and (cursor.statusmessage or "").startswith(CHANGES)
    return {"rows": rows, "nothing": changes and rows == 0}


def ended(detail: dict[str, Any]) -> Attempt:
    """A statement that may do anything (a function call) counts as done; changes that changed no row as not needed."""
    if detail.get("nothing"):
        return Attempt(result=Result.NOT_NEEDED, why="it changed no row", facts={"rows": 0})
    return Attempt(result=Result.DONE, facts={"rows": detail.get("rows", 0)})
