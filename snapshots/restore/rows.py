"""The row changes that bring tables back, and what must hold around them; all inside one transaction, under locks.

Every statement costs what the planned rows cost. ``want`` of each table says what to do (see ``restore_frame``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import Connection, errors, sql

from snapshots import database
from snapshots.capture import shape
from snapshots.capture.shape import Relation
from snapshots.points.errors import WouldBreak
from snapshots.restore import by_journal
from snapshots.restore.frame import Frame, counts, matching, names

Frames = Mapping[str, Frame]
Counts = Mapping[str, Mapping[str, int]]


def bring_back(
    conn: Connection[Any], frames: Frames, planned: Counts, order: Sequence[str], relations: Sequence[Relation]
) -> None:
    """Delete, update and insert until the tables are as wanted. ``order`` names parents before children.

    Deleting first frees unique values that a wanted row needs; deleting last frees parents that a child names until it
    is updated; replacing rows instead of updating them lets rows exchange unique values; inserting without references
    and setting them afterwards closes circles. Each way is tried in a savepoint and judged by what is there then.
    Raises :class:`WouldBreak` when none leads to the goal.
    """
    causes: list[str] = []
    erasing = {r.parent for r in relations if r.erases}
    hollow = _hollow(frames, relations)
    open_order = shape.parents_first(frames, [r for r in relations if not _open(r, hollow)])
    plain: dict[str, tuple[str, ...]] = {}
    ways = [
        ((_delete, _update, _insert), order, plain),
        ((_insert, _update, _delete), order, plain),
        ((_delete, _replace, _insert), order, plain),
        *([((_delete, _update, _insert), open_order, hollow)] if hollow else []),
    ]
    for steps, tables, late in ways:
        try:
            with conn.transaction():
                conn.execute("SET CONSTRAINTS ALL DEFERRED")
                for table, columns in late.items():
                    _empty(conn, frames[table], columns)
                for step in steps:
                    for table in reversed(tables) if step is _delete else tables:
                        # Replacing a row would erase what hangs on it where a foreign key says so.
                        chosen = _update if step is _replace and table in erasing else step
                        chosen(conn, frames[table], planned[table], late.get(table, ()))
                for table, columns in late.items():
                    _fill(conn, frames[table], columns)
                conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
                for frame in frames.values():
                    if any(planned[frame.name].values()):
                        _prove(conn, frame, planned[frame.name])
                return
        except errors.IntegrityError as error:
            causes.append(error.diag.message_primary or type(error).__name__)
        except WouldBreak as error:
            causes.append(str(error))
    for frame in frames.values():
        if frame.how == "journal" and (unlike := by_journal.unlike(conn, frame)):
            raise WouldBreak(
                f"The journal missed changes of {unlike} rows of {frame.name}; compare with a point (`--source scan`)."
            )
    raise WouldBreak(
        f"The wanted rows do not fit the database ({'; another way: '.join(dict.fromkeys(causes))}); "
        "restore the related tables together, or restore into a copy."
    )


def _hollow(frames: Frames, relations: Sequence[Relation]) -> dict[str, tuple[str, ...]]:
    """Reference columns that may be null and lie on a circle of tables: set in a second pass if nothing else works."""
    above: dict[str, set[str]] = {}
    for relation in relations:
        if relation.child in frames and relation.parent in frames and relation.child != relation.parent:
            above.setdefault(relation.child, set()).add(relation.parent)

    def reaches(start: str, end: str, seen: frozenset[str] = frozenset()) -> bool:
        return end in above.get(start, ()) or any(
            reaches(n, end, seen | {n}) for n in above.get(start, ()) if n not in seen
        )

    found: dict[str, tuple[str, ...]] = {}
    for relation in relations:
        if relation.child not in frames or not reaches(relation.parent, relation.child):
            continue
        frame = frames[relation.child]
        free = {c.name for c in frame.columns if not c.not_null and c.identity != "a"} - set(frame.key)
        if set(relation.columns) <= free:
            found[relation.child] = (*found.get(relation.child, ()), *relation.columns)
    return found


def _open(relation: Relation, hollow: Mapping[str, Sequence[str]]) -> bool:
    return set(relation.columns) <= set(hollow.get(relation.child, ()))


def _expect(frame: Frame, what: str, done: int, wanted: int) -> None:
    if done != wanted:
        raise WouldBreak(
            f"{done} rows of {frame.name} were {what} instead of {wanted}; a trigger or a rule stands in between, "
            "declare it as suppressed"
        )


def _delete(conn: Connection[Any], frame: Frame, planned: Mapping[str, int], _: Sequence[str]) -> None:
    if planned["D"]:
        done = conn.execute(
            sql.SQL("DELETE FROM {} l USING {} w WHERE w.rj_do = 'D' AND {}").format(
                frame.live, frame.temp("want"), frame.ours("l", "w")
            )
        ).rowcount
        _expect(frame, "deleted", done, planned["D"])


def _update(conn: Connection[Any], frame: Frame, planned: Mapping[str, int], late: Sequence[str]) -> None:
    columns = [c.name for c in frame.columns if c.identity != "a" and c.name not in late]
    if planned["U"] and columns:
        done = conn.execute(
            sql.SQL("UPDATE {} l SET {} FROM {} w WHERE w.rj_do = 'U' AND {}").format(
                frame.live, _assign(columns), frame.temp("want"), frame.ours("l", "w")
            )
        ).rowcount
        _expect(frame, "updated", done, planned["U"])


def _replace(conn: Connection[Any], frame: Frame, planned: Mapping[str, int], _: Sequence[str]) -> None:
    """Delete and insert changed rows in one statement, so that foreign keys are checked when all are back. The count
    makes PostgreSQL finish the deletion before it inserts."""
    if planned["U"]:
        conn.execute(
            sql.SQL(
                "WITH gone AS (DELETE FROM {live} l USING {want} w WHERE w.rj_do = 'U' AND {ours} RETURNING 1)"
                " INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {want} w"
                " WHERE w.rj_do = 'U' AND (SELECT count(*) FROM gone) > 0"
            ).format(
                live=frame.live,
                want=frame.temp("want"),
                ours=frame.ours("l", "w"),
                table=database.qualified(frame.name),
                columns=frame.values(),
                values=frame.values("w"),
            )
        )


def _insert(conn: Connection[Any], frame: Frame, planned: Mapping[str, int], late: Sequence[str]) -> None:
    if planned["I"]:
        present = [c.name for c in frame.columns if c.name not in late]
        done = conn.execute(
            sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} w WHERE w.rj_do = 'I'").format(
                database.qualified(frame.name), names(present), names(present, "w"), frame.temp("want")
            )
        ).rowcount
        _expect(frame, "inserted", done, planned["I"])


def _empty(conn: Connection[Any], frame: Frame, columns: Sequence[str]) -> None:
    """The first pass of a circle: rows that go, or change, name nobody any more."""
    nothing = sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(c)) for c in columns)
    conn.execute(
        sql.SQL("UPDATE {} l SET {} FROM {} w WHERE w.rj_do IN ('D', 'U') AND {}").format(
            frame.live, nothing, frame.temp("want"), frame.ours("l", "w")
        )
    )


def _fill(conn: Connection[Any], frame: Frame, columns: Sequence[str]) -> None:
    """The last pass of a circle: references of rows that were written without them."""
    conn.execute(
        sql.SQL("UPDATE {} l SET {} FROM {} w WHERE w.rj_do IN ('I', 'U') AND {}").format(
            frame.live, _assign(columns), frame.temp("want"), frame.same_key("l", "w")
        )
    )


def _assign(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{0} = w.{0}").format(sql.Identifier(c)) for c in columns)


def _prove(conn: Connection[Any], frame: Frame, planned: Mapping[str, int]) -> None:
    """Every planned row is now as wanted, bit by bit, and no other row of a journaled table was written. The journal of
    our own writes says so at once; where it does not, the table is asked."""
    whole = False
    if frame.how == "journal":
        new, old, right = by_journal.written(conn, frame)
        whole = (new, old) == (planned["U"] + planned["I"], planned["U"] + planned["D"])
        if whole and right == new + old:
            return
        if beyond := by_journal.beyond(conn, frame):
            raise WouldBreak(f"A trigger changed {beyond} other rows of {frame.name}; declare it as suppressed")
    if not frame.key:
        _prove_bag(conn, frame)
        return
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FROM {want} w LEFT JOIN {live} l ON {same} WHERE CASE WHEN w.rj_do = 'D'"
            " THEN l.ctid IS NOT NULL ELSE l.ctid IS NULL OR record_image_ne({now}, {wanted}) END"
        ).format(
            want=frame.temp("want"),
            live=frame.live,
            same=frame.same_key("l", "w"),
            now=frame.image("l"),
            wanted=frame.image("w"),
        )
    ).fetchone()
    if row and row[0]:
        raise WouldBreak(f"{row[0]} rows of {frame.name} still differ; a trigger of the app may have to be suppressed")
    if whole:
        raise WouldBreak(f"The journal missed changes of rows of {frame.name}; compare with a point (`--source scan`)")


def _prove_bag(conn: Connection[Any], frame: Frame) -> None:
    """Of rows without a key, as many as were inserted are there with each image. Only looked for where a trigger of the
    app could have changed them on their way in: it takes a scan."""
    if not any(t.state in ("O", "A") for t in database.triggers(conn, frame.name)):
        return
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FROM (SELECT {w}::text AS rj_body, count(*) AS rj_n FROM {want} w WHERE w.rj_do = 'I'"
            " GROUP BY 1) k LEFT JOIN (SELECT {l}::text AS rj_body, count(*) AS rj_n FROM {live} l GROUP BY 1) h"
            " USING (rj_body) WHERE coalesce(h.rj_n, 0) < k.rj_n"
        ).format(w=frame.image("w"), l=frame.image("l"), want=frame.temp("want"), live=frame.live)
    ).fetchone()
    if row and row[0]:
        raise WouldBreak(f"{row[0]} rows of {frame.name} still differ; a trigger of the app may have to be suppressed")


def refuse_erasing(conn: Connection[Any], frames: Frames, relations: Sequence[Relation]) -> None:
    """Refuse to delete rows when a foreign key would delete or blank rows of a table that is not being restored. The
    rows to be deleted are locked first, so that no reference to one appears after the look."""
    for relation in relations:
        parent = frames.get(relation.parent)
        if parent is None or relation.child in frames or not relation.erases:
            continue
        doomed = sql.SQL("{} l JOIN {} w ON w.rj_do = 'D' AND {}").format(
            parent.live, parent.temp("want"), parent.ours("l", "w")
        )
        conn.execute(sql.SQL("SELECT FROM {} FOR UPDATE OF l").format(doomed))
        row = conn.execute(
            sql.SQL("SELECT count(*) FROM {} JOIN {} c ON {}").format(
                doomed, database.qualified(relation.child), matching("l", relation.to, "c", relation.columns)
            )
        ).fetchone()
        if row and row[0]:
            raise WouldBreak(
                f"Deleting later rows of {relation.parent} would also erase {row[0]} rows of {relation.child}; "
                f"restore {relation.child} too."
            )


def note_vacated(conn: Connection[Any], frames: Frames, relations: Sequence[Relation]) -> None:
    """Before anything is written, keep which referenced values go: of rows to be deleted, and of rows that change them.
    Table ``gone`` of the parent."""
    for name in {r.parent for r in relations if r.parent in frames}:
        frame = frames[name]
        columns = sorted({c for r in relations if r.parent == name for c in r.to})
        changing = [c for c in columns if c not in frame.key]
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(frame.temp("gone")))
        query = sql.SQL("SELECT {} FROM {} w WHERE w.rj_do = 'D'").format(names(columns, "w"), frame.temp("want"))
        if changing:
            query += sql.SQL(
                " UNION ALL SELECT {} FROM {} w JOIN {} l ON {} WHERE w.rj_do = 'U' AND record_image_ne({}, {})"
            ).format(
                names(columns, "l"),
                frame.temp("want"),
                frame.live,
                frame.ours("l", "w"),
                sql.SQL("ROW({})").format(names(changing, "l")),
                sql.SQL("ROW({})").format(names(changing, "w")),
            )
        conn.execute(sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS {}").format(frame.temp("gone"), query))
        conn.execute(sql.SQL("ANALYZE {}").format(frame.temp("gone")))


def refuse_orphans(conn: Connection[Any], frames: Frames, relations: Sequence[Relation]) -> None:
    """After the writes: no row names a parent that was taken away, and no written row names one that is not restored
    with it and does not exist."""
    for relation in relations:
        parent, child = frames.get(relation.parent), frames.get(relation.child)
        absent = sql.SQL("NOT EXISTS (SELECT FROM {} p WHERE {})").format(
            database.qualified(relation.parent), matching("p", relation.to, "c", relation.columns)
        )
        checks: list[sql.Composed] = []
        if parent is not None:
            checks.append(
                sql.SQL("SELECT count(*) FROM {} g JOIN {} c ON {} WHERE {}").format(
                    parent.temp("gone"),
                    database.qualified(relation.child),
                    matching("c", relation.columns, "g", relation.to),
                    absent,
                )
            )
        elif child is not None:
            filled = sql.SQL(" AND ").join(
                sql.SQL("{} IS NOT NULL").format(sql.Identifier("c", c)) for c in relation.columns
            )
            checks.append(
                sql.SQL("SELECT count(*) FROM {} c WHERE c.rj_do <> 'D' AND {} AND {}").format(
                    child.temp("want"), filled, absent
                )
            )
        for check in checks:
            row = conn.execute(check).fetchone()
            if row and row[0]:
                raise WouldBreak(
                    f"{row[0]} rows of {relation.child} would lose their {relation.parent}; restore both together."
                )


def tally(conn: Connection[Any], frames: Frames) -> dict[str, dict[str, int]]:
    """What is planned, by table."""
    return {name: counts(conn, frame) for name, frame in frames.items()}
