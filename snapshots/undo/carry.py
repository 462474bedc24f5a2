"""Carry: apply people's edits again that were undone only because they were entangled with the selection.

After the replay the rows they edited exist once more, made by the good version. Each carried transaction's net change
is put on top, in journal order: an update sets only the columns that the edit changed (``additive`` ones by their
difference), an insert happens if the row is absent, a delete if it is there. What cannot be carried is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import errors, sql

from snapshots.database import qualified, set_triggers
from snapshots.model import Applied, RunRef, UndoSpec
from snapshots.undo import chain, merge, write
from snapshots.undo.errors import UndoRefused
from snapshots.undo.select import Selection, require_journal, select
from snapshots.undo.shape import Column, Relation, Shape, col, comma, equal
from snapshots.undo.step import LOCK_TIMEOUT_S, already, one_transaction, record, tag
from snapshots.undo.tables import fix_output, parents_first, read_relations, read_shapes

LISTED = 500


class _DanglingError(Exception):
    """A carried row would reference a missing one; only a declared reference says so."""


@dataclass(kw_only=True, slots=True)
class _Report:
    done: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: list[dict[str, Any]] = field(default_factory=list)
    exists: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    def add(self, table: str, what: str, rows: int) -> None:
        counts = self.done.setdefault(table, {"insert": 0, "update": 0, "delete": 0})
        counts[what] += rows


def apply(
    conn: psycopg.Connection[Any],
    spec: UndoSpec,
    xids: Sequence[int],
    *,
    recovery_id: str,
    step: str,
    plan_hash: str,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Applied:
    """Apply the net changes of ``xids`` again, once per (``recovery_id``, ``step``). Recoverer; one transaction.

    ``detail`` of the result: ``tables`` (rows inserted, updated, deleted), ``missing`` (the row to update does not
    exist), ``exists`` (the row to insert is there, with other content), ``refused`` (transactions that would break a
    constraint; nothing of them was applied). Raises as :func:`snapshots.undo.undo.apply` does.
    """
    with one_transaction(conn, lock_timeout_s=lock_timeout_s):
        require_journal(conn)
        done = already(conn, recovery_id, step, plan_hash)
        if done is not None:
            return done
        fix_output(conn)
        carried = RunRef(actor="", run=None, xids=tuple(xids))
        wanted = replace(spec, runs=(carried,), cancelled=(), xids=(), actors=(), since=None, until=None)
        wanted = replace(wanted, only=(), where=())
        selection = select(conn, wanted)
        if selection.problems:
            raise UndoRefused("; ".join(selection.problems))
        relations = read_relations(conn, spec.tables)
        write.lock(conn, selection.tables, relations)
        done = already(conn, recovery_id, step, plan_hash)
        if done is not None:
            return done
        report = _carry(conn, wanted, selection, relations, recovery_id)
        detail = {
            "kind": "carry",
            "tables": report.done,
            "missing": report.missing,
            "exists": report.exists,
            "refused": report.refused,
        }
        return record(conn, recovery_id, step, plan_hash, detail)


def _carry(
    conn: psycopg.Connection[Any],
    spec: UndoSpec,
    selection: Selection,
    relations: Sequence[Relation],
    recovery_id: str,
) -> _Report:
    all_shapes, problems = read_shapes(conn, [table for table in spec.tables if table.name in selection.tables])
    if problems:
        raise UndoRefused("; ".join(problems))
    shapes = parents_first([selection.of(shape) for shape in all_shapes], relations)
    changes: list[tuple[int, int, Shape]] = []
    for shape in shapes:
        chain.all_keys(conn, shape)
        chain.read_images(conn, shape)
        chain.net_changes(conn, shape)
        changes += _transactions(conn, shape)
    order = sorted({xid: seq for seq, xid, _ in sorted(changes, key=lambda c: -c[0])}.items(), key=lambda item: item[1])
    _check_caps(conn, spec, shapes)
    report = _Report()
    tag(conn, recovery_id)
    set_triggers(conn, [shape.spec for shape in shapes], enabled=False)
    conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for xid, _ in order:
        touched = [shape for shape in shapes if any(c[1] == xid and c[2] is shape for c in changes)]
        attempt = _Report()
        try:
            with conn.transaction():
                _one(conn, touched, relations, xid, attempt)
        except errors.IntegrityError as error:
            report.refused.append({"xid": xid, "cause": error.diag.constraint_name or type(error).__name__})
            continue
        except _DanglingError as error:
            report.refused.append({"xid": xid, "cause": str(error)})
            continue
        for table, counts in attempt.done.items():
            for what, rows in counts.items():
                report.add(table, what, rows)
        report.missing += attempt.missing
        report.exists += attempt.exists
    set_triggers(conn, [shape.spec for shape in shapes], enabled=True)
    return report


def _transactions(conn: psycopg.Connection[Any], shape: Shape) -> list[tuple[int, int, Shape]]:
    rows = conn.execute(
        sql.SQL(
            "SELECT min(c.rj_n), c.rj_xid::text, bool_or(c.rj_split) FROM {} AS c WHERE c.rj_sel GROUP BY c.rj_xid"
        ).format(shape.temp("chg"))
    ).fetchall()
    for _, xid, split in rows:
        if split:
            raise UndoRefused(
                f"table {shape.name}: the journal missed changes of transaction {xid}: carry that edit by hand"
            )
    return [(int(seq), int(xid), shape) for seq, xid, _ in rows]


def _check_caps(conn: psycopg.Connection[Any], spec: UndoSpec, shapes: Sequence[Shape]) -> None:
    deleted = changed = 0
    for shape in shapes:
        row = conn.execute(
            sql.SQL("SELECT count(*) FILTER (WHERE c.rj_after IS NULL), count(*) FROM {} AS c WHERE c.rj_sel").format(
                shape.temp("chg")
            )
        ).fetchone()
        deleted, changed = deleted + (row[0] if row else 0), changed + (row[1] if row else 0)
    if deleted > spec.max_deleted_rows or changed > spec.max_changed_rows:
        raise UndoRefused(
            f"{changed} changes ({deleted} deletes) would be carried, the caps are {spec.max_changed_rows} and "
            f"{spec.max_deleted_rows}: raise them if this is meant"
        )


def _one(
    conn: psycopg.Connection[Any],
    shapes: Sequence[Shape],
    relations: Sequence[Relation],
    xid: int,
    report: _Report,
) -> None:
    """One carried transaction: what it updated and inserted, parents first, then what it deleted, children first."""
    for shape in shapes:
        _listed(conn, shape, xid, report)
        report.add(shape.name, "update", _update(conn, shape, xid))
        report.add(shape.name, "insert", _insert(conn, shape, xid))
    for shape in reversed(shapes):
        report.add(shape.name, "delete", _delete(conn, shape, xid))
    for shape in shapes:
        for relation in relations:
            if relation.declared and relation.child == shape.name:
                _check_reference(conn, shape, relation, xid)


def _changes(shape: Shape, xid: int, kind: str) -> sql.Composed:
    """``FROM`` part: the transaction's changes ``c`` of one kind with images ``b`` (before) and ``a`` (after)."""
    kinds = {
        "insert": "c.rj_before IS NULL AND c.rj_after IS NOT NULL",
        "update": "c.rj_before IS NOT NULL AND c.rj_after IS NOT NULL",
        "delete": "c.rj_before IS NOT NULL AND c.rj_after IS NULL",
    }
    return sql.SQL(
        "(SELECT c.* FROM {chg} AS c WHERE c.rj_xid = {xid}::text::xid8 AND {kind}) AS c "
        "LEFT JOIN {img} AS b ON {b_c} LEFT JOIN {img} AS a ON {a_c}"
    ).format(
        b_c=shape.image("b", "c", "rj_before"),
        a_c=shape.image("a", "c", "rj_after"),
        chg=shape.temp("chg"),
        img=shape.temp("img"),
        xid=sql.Literal(xid),
        kind=sql.SQL(kinds[kind]),
    )


def _listed(conn: psycopg.Connection[Any], shape: Shape, xid: int, report: _Report) -> None:
    """Rows that cannot be carried: to be updated but absent, to be inserted but there with other content."""
    same = shape.same_key("c", "t", row=True)
    for kind, condition, into in (
        ("update", sql.SQL("{} IS NULL").format(col("t", shape.key[0])), report.missing),
        (
            "insert",
            sql.SQL("{} IS NOT NULL AND {} <> c.rj_after_h").format(col("t", shape.key[0]), shape.digest("t")),
            report.exists,
        ),
    ):
        for (key,) in conn.execute(
            sql.SQL("SELECT {} FROM {} LEFT JOIN {} AS t ON {} WHERE {} ORDER BY c.rj_n LIMIT {}").format(
                shape.key_texts("c"), _changes(shape, xid, kind), shape.relation, same, condition, sql.Literal(LISTED)
            )
        ):
            into.append({"table": shape.name, "key": list(key), "xid": xid})


def _update(conn: psycopg.Connection[Any], shape: Shape, xid: int) -> int:
    columns = [c for c in shape.columns if c.writable and c.name not in shape.key]
    if not columns:
        return 0
    return conn.execute(
        sql.SQL(
            "UPDATE {live} AS t SET {sets} FROM (SELECT {keys}, {values} FROM {changes} "
            "JOIN {live} AS t ON {same}) AS x WHERE {x_same}"
        ).format(
            live=shape.relation,
            sets=comma(
                sql.SQL("{} = {}").format(sql.Identifier(column.name), col("x", f"rj_a_{n}"))
                for n, column in enumerate(columns)
            ),
            keys=shape.keys("c"),
            values=comma(
                sql.SQL("{} AS {}").format(_carried(column), sql.Identifier(f"rj_a_{n}"))
                for n, column in enumerate(columns)
            ),
            changes=_changes(shape, xid, "update"),
            same=shape.same_key("c", "t", row=True),
            x_same=shape.same_key("x", "t", row=True),
        )
    ).rowcount


def _carried(column: Column) -> sql.Composed:
    """The live value ``t``, unless the edit changed the column."""
    value: sql.Composable = col("a", column.name)
    if column.additive:
        value = sql.SQL("coalesce(({live}::{summed} + ({added}))::{kind}, {value})").format(
            live=col("t", column.name),
            summed=column.summed,
            added=merge.difference(column, "a", "b"),
            kind=column.cast,
            value=value,
        )
    return sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(
        column.differs(col("b", column.name), col("a", column.name)), value, col("t", column.name)
    )


def _insert(conn: psycopg.Connection[Any], shape: Shape, xid: int) -> int:
    return conn.execute(
        sql.SQL(
            "INSERT INTO {live} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {changes} "
            "WHERE NOT EXISTS (SELECT 1 FROM {live} AS t WHERE {same})"
        ).format(
            live=shape.relation,
            names=comma(sql.Identifier(name) for name in shape.names),
            values=shape.values("a"),
            changes=_changes(shape, xid, "insert"),
            same=shape.same_key("c", "t", row=True),
        )
    ).rowcount


def _delete(conn: psycopg.Connection[Any], shape: Shape, xid: int) -> int:
    return conn.execute(
        sql.SQL("DELETE FROM {live} AS t USING {changes} WHERE {same}").format(
            live=shape.relation,
            changes=_changes(shape, xid, "delete"),
            same=shape.same_key("c", "t", row=True),
        )
    ).rowcount


def _check_reference(conn: psycopg.Connection[Any], shape: Shape, relation: Relation, xid: int) -> None:
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FROM {chg} AS c JOIN {live} AS t ON {same} WHERE c.rj_xid = {xid}::text::xid8 "
            "AND c.rj_after IS NOT NULL AND {filled} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {found})"
        ).format(
            chg=shape.temp("chg"),
            live=shape.relation,
            same=shape.same_key("c", "t", row=True),
            xid=sql.Literal(xid),
            filled=sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(col("t", n)) for n in relation.columns),
            parent=qualified(relation.parent),
            found=equal("p", relation.to, "t", relation.columns),
        )
    ).fetchone()
    if row and row[0]:
        raise _DanglingError(f"{relation.child} would reference missing rows of {relation.parent}")
