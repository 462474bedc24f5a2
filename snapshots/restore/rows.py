"""The row changes that bring tables back, and what must hold around them; all inside one transaction, under locks.

Every statement costs what the planned rows cost. ``want`` of each table says what to do (see ``restore_frame``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from psycopg import Connection, errors, sql

from snapshots import database
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

    First kind by kind, one statement per table. Where foreign keys or unique values get in the way half-way, all rows
    of all tables at once: PostgreSQL then asks for references only when everything is there. Parents with a key that
    refuses are first left standing; those that nobody names may go for a moment all the same. Each way is tried in a
    savepoint and judged by what is there then. Raises :class:`WouldBreak` when none leads to the goal.
    """
    acting = frozenset(r.parent for r in relations if r.on_delete != "nothing")
    erasing = frozenset(r.parent for r in relations if r.on_delete == "erase")
    ways: list[Callable[[Connection[Any], Sequence[Frame], Counts], None]] = [_in_turn]
    ways += [partial(_at_once, standing=parents) for parents in dict.fromkeys((acting, erasing))]
    causes: list[str] = []
    for way in ways:
        try:
            with conn.transaction():
                conn.execute("SET CONSTRAINTS ALL DEFERRED")
                way(conn, [frames[name] for name in order], planned)
                conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
                for frame in frames.values():
                    if any(planned[frame.name].values()):
                        _prove(conn, frame, planned[frame.name])
                return
        except (errors.IntegrityError, errors.FeatureNotSupported) as error:
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


def _in_turn(conn: Connection[Any], ordered: Sequence[Frame], planned: Counts) -> None:
    """Deletions, children first; then updates, then insertions, parents first."""
    for frames, make, kind, what in (
        (ordered[::-1], _delete, "D", "deleted"),
        (ordered, _update, "U", "updated"),
        (ordered, _insert, "I", "inserted"),
    ):
        for frame in frames:
            if planned[frame.name][kind]:
                _expect(frame, what, conn.execute(make(frame, kind)).rowcount, planned[frame.name][kind])


def _at_once(conn: Connection[Any], ordered: Sequence[Frame], planned: Counts, *, standing: Collection[str]) -> None:
    """One statement for all tables, so that no reference is checked before its last row is written. Changed rows are
    taken out and put back, so that they may exchange unique values; those of ``standing``, parents whose foreign keys
    act on that, are updated in place."""
    parts: list[sql.Composed] = []
    expected: list[tuple[Frame, str, str, int]] = []
    for frame in ordered:
        counts = planned[frame.name]
        out, back = ("D", "I") if frame.name in standing else ("DU", "IU")
        before: sql.Identifier | None = None
        steps = [(out, _delete, "deleted"), (back, _insert, "inserted")]
        if frame.name in standing:
            steps.insert(1, ("U", _update, "updated"))
        for kinds, make, what in steps:
            if not (wanted := sum(counts[kind] for kind in kinds)):
                continue
            name = sql.Identifier(f"rj_{what}_{frame.number}")
            # Counting what the step before returns makes PostgreSQL finish it first.
            after = sql.SQL(" AND (SELECT count(*) FROM {}) >= 0").format(before) if before else sql.SQL("")
            parts.append(sql.SQL("{} AS ({}{} RETURNING 1)").format(name, make(frame, kinds), after))
            expected.append((frame, what, f"rj_{what}_{frame.number}", wanted))
            before = name
    row = conn.execute(
        sql.SQL("WITH {} SELECT {}").format(
            sql.SQL(", ").join(parts),
            sql.SQL(", ").join(
                sql.SQL("(SELECT count(*) FROM {})").format(sql.Identifier(name)) for _, _, name, _ in expected
            ),
        )
    ).fetchone()
    for (frame, what, _, wanted), done in zip(expected, row or (), strict=True):
        _expect(frame, what, done, wanted)


def _expect(frame: Frame, what: str, done: int, wanted: int) -> None:
    if done != wanted:
        raise WouldBreak(
            f"{done} rows of {frame.name} were {what} instead of {wanted}; a trigger or a rule stands in between, "
            "declare it as suppressed"
        )


def _delete(frame: Frame, kinds: str) -> sql.Composed:
    return sql.SQL("DELETE FROM {} l USING {} w WHERE w.rj_do IN ({}) AND {}").format(
        frame.live, frame.temp("want"), _kinds(kinds), frame.ours("l", "w")
    )


def _update(frame: Frame, kinds: str) -> sql.Composed:
    columns = [c.name for c in frame.columns if c.identity != "a"]
    if not columns:
        raise WouldBreak(f"Every column of {frame.name} is always generated, none can be set")
    return sql.SQL("UPDATE {} l SET {} FROM {} w WHERE w.rj_do IN ({}) AND {}").format(
        frame.live, _assign(columns), frame.temp("want"), _kinds(kinds), frame.ours("l", "w")
    )


def _insert(frame: Frame, kinds: str) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} w WHERE w.rj_do IN ({})").format(
        database.qualified(frame.name), frame.values(), frame.values("w"), frame.temp("want"), _kinds(kinds)
    )


def _kinds(kinds: str) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Literal, kinds))


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
    """Refuse to delete rows, or to change values that others name, when a foreign key would then delete, blank or
    change rows that nothing is planned for. The rows in question are locked first, so that no reference to one appears
    after the look."""
    for relation in relations:
        parent = frames.get(relation.parent)
        if parent is None:
            continue
        for doing, effect, action, going in (
            ("Deleting later rows", "erase", relation.on_delete, sql.SQL("w.rj_do = 'D'")),
            ("Taking back values", "change", relation.on_update, _changes(parent, relation.to)),
        ):
            if action != "erase" or not (taken := _taken_along(conn, frames, parent, relation, going)):
                continue
            if relation.child not in frames:
                next_step = f"restore {relation.child} too."
            else:
                next_step = "none of these is planned: plan again, or restore into a copy."
            raise WouldBreak(
                f"{doing} of {relation.parent} would also {effect} {taken} rows of {relation.child}; {next_step}"
            )


def _taken_along(
    conn: Connection[Any], frames: Frames, parent: Frame, relation: Relation, going: sql.Composable
) -> int:
    """Live rows that name a parent that is ``going``, without those that something is planned for."""
    child = frames.get(relation.child)
    gone = sql.SQL("{} l JOIN {} w ON {} AND {}").format(parent.live, parent.temp("want"), going, parent.ours("l", "w"))
    conn.execute(sql.SQL("SELECT FROM {} FOR UPDATE OF l").format(gone))
    query = sql.SQL("SELECT count(*) FROM {} JOIN {} c ON {}").format(
        gone, database.qualified(relation.child), matching("l", relation.to, "c", relation.columns)
    )
    if child is not None:
        query += sql.SQL(" WHERE NOT EXISTS (SELECT FROM {} o WHERE {})").format(
            child.temp("want"), child.ours("c", "o")
        )
    row = conn.execute(query).fetchone()
    return int(row[0]) if row else 0


def _changes(frame: Frame, columns: Sequence[str]) -> sql.Composed:
    """The row ``w`` of ``want`` gives the live row ``l`` other values in ``columns``. Any change may do that to
    generated ones."""
    if not _has(frame, columns):
        return sql.Composed([sql.SQL("w.rj_do = 'U'")])
    return sql.SQL("w.rj_do = 'U' AND record_image_ne(ROW({}), ROW({}))").format(
        names(columns, "l"), names(columns, "w")
    )


def kept(frames: Frames, relations: Sequence[Relation]) -> tuple[Relation, ...]:
    """Those whose columns ``want`` holds: without generated ones, which are left to the database to check."""
    return tuple(
        r
        for r in relations
        if all(name not in frames or _has(frames[name], c) for name, c in ((r.parent, r.to), (r.child, r.columns)))
    )


def _has(frame: Frame, columns: Sequence[str]) -> bool:
    return set(columns) <= {c.name for c in frame.columns}


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
