"""What can happen in a life: each method does it to the database and to the model, and holds one against the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from data_desk import DataDesk, NoPlatform, delete_sql, insert_sql, rekey_sql, update_sql
from data_model import Key, Model, Open, Refusal, Row, Selected, State, Statement, Transaction, undone
from data_schemas import AUDIT, COUNT, PALETTE, Table
from psycopg import errors

from snapshots.capture import capture
from snapshots.errors import Incomplete, Refused
from snapshots.journal import journal
from snapshots.model import Policy, Position, RecoveryPoint, RunRef, UndoSpec
from snapshots.points import points, reading
from snapshots.points.errors import Busy
from snapshots.restore import restore
from snapshots.store import retention
from snapshots.store.store import Store
from snapshots.undo import undo
from snapshots.undo.errors import UndoBusy

TEXT_IDS = ("a", "B", "é ö", "", "x'y", "100%s")
BUSY_S = 0.05


class Life:
    def __init__(self, desk: DataDesk, folder: Path, done: dict[str, int]) -> None:
        self.desk = desk
        self.schema = desk.schema
        self.model = Model(desk.schema)
        self.store = Store(str(folder))
        self.open: dict[str, Open] = {}
        self.points: list[tuple[RecoveryPoint, State, int]] = []
        self.ticks: list[tuple[Position, State, int]] = []
        self.pruned_at = -1
        """The model's clock at the tick up to which the journal was pruned."""
        self.count = 0
        self.counted = done
        self.dirty = True
        desk.reset()

    def end(self) -> None:
        for actor in list(self.open):
            self.finish(actor, commit=False)
        self.compare()

    def compare(self) -> None:
        if self.dirty:
            assert differences(self.desk.rows(), self.model.committed) == []
            self.dirty = False

    def _did(self, what: str) -> None:
        self.counted[what] = self.counted.get(what, 0) + 1

    # The actors.

    def populate(self, rows: int) -> None:
        """The first rows, written by nobody's run."""
        for n in range(rows):
            for table in range(len(self.schema.tables)):
                self.transaction("ann", 0, [{"what": "insert", "table": table, "idents": [n], "values": [n, n, n]}])

    def opened(self, which: int) -> str:
        """An actor with an open transaction."""
        actors = sorted(self.open)
        return actors[which % len(actors)]

    def transaction(self, actor: str, run: int, statements: list[dict[str, Any]]) -> None:
        """A whole transaction in one go, unless the actor has one open."""
        if actor in self.open:
            return
        tx, first = self._new(actor, run)
        texts, refused = [], False
        for statement in statements:
            text, attempt = self._play(tx, statement)
            if not text:
                continue
            texts.append(text)
            refused = refused or attempt is None
            if attempt:
                tx.changes |= attempt.changes
        refused = refused or not self._whole(tx)
        conn = self.desk.connections[actor]
        script = "; ".join(["BEGIN", first, *texts, "SELECT pg_current_xact_id()::text", "COMMIT"])
        try:
            xid = _last_value(conn.execute(script.encode()))
        except errors.LockNotAvailable:
            conn.execute("ROLLBACK")
            self._did("waited")
        except errors.IntegrityError:
            conn.execute("ROLLBACK")
            assert refused, "the database refused what the model allows"
            self._did("refused")
        else:
            assert not refused, "the database allows what the model refuses"
            self.model.commit(tx, xid)
            self.dirty = True

    def begin(self, actor: str, run: int) -> None:
        if actor not in self.open:
            tx, first = self._new(actor, run)
            self.desk.connections[actor].execute(f"BEGIN; {first}; SELECT pg_current_xact_id()".encode())
            self.open[actor] = tx

    def statement(self, actor: str, statement: dict[str, Any]) -> None:
        tx = self.open.get(actor)
        if tx is None:
            self.transaction(actor, 0, [statement])
            return
        text, attempt = self._play(tx, statement)
        if not text:
            return
        conn = self.desk.connections[actor]
        try:
            conn.execute(f"SAVEPOINT one; {text}; RELEASE one".encode())
        except errors.LockNotAvailable:
            conn.execute("ROLLBACK TO one; RELEASE one")
            self._did("waited")
        except errors.IntegrityError:
            conn.execute("ROLLBACK TO one; RELEASE one")
            assert attempt is None, "the database refused what the model allows"
            self._did("refused")
        else:
            assert attempt is not None, "the database allows what the model refuses"
            tx.changes |= attempt.changes

    def savepoint(self, actor: str) -> None:
        tx = self.open.get(actor)
        if tx is not None:
            self.desk.connections[actor].execute(f"SAVEPOINT s{len(tx.saved)}".encode())
            tx.saved.append(dict(tx.changes))

    def rollback_to(self, actor: str) -> None:
        tx = self.open.get(actor)
        if tx is not None and tx.saved:
            tx.changes = tx.saved.pop()
            self.desk.connections[actor].execute(f"ROLLBACK TO s{len(tx.saved)}".encode())

    def finish(self, actor: str, *, commit: bool) -> None:
        tx = self.open.pop(actor, None)
        if tx is None:
            return
        conn = self.desk.connections[actor]
        if not commit:
            conn.execute("ROLLBACK")
            return
        whole = self._whole(tx)
        try:
            xid = _last_value(conn.execute("SELECT pg_current_xact_id()::text; COMMIT"))
        except errors.IntegrityError:
            conn.execute("ROLLBACK")
            assert not whole, "the database refused to commit what the model allows"
        except errors.LockNotAvailable:
            conn.execute("ROLLBACK")
        else:
            assert whole, "the database committed what the model refuses"
            self.model.commit(tx, xid)
            self.dirty = True

    def _new(self, actor: str, run: int) -> tuple[Open, str]:
        """A transaction, and the statement that tags it. Run 0 is that of writes without a tag."""
        self.count += 1
        name = f"{actor}-run-{run}" if run else ""
        tx = Open(actor=actor, run=name, tag=f"x{self.count}", began=self.model.clock)
        return tx, f"SELECT set_config('reinstate.run', '{name}', true), set_config('app.tag', '{tx.tag}', true)"

    def _whole(self, tx: Open) -> bool:
        try:
            Statement(self.model, tx).check(deferred=True)
        except Refusal:
            return False
        return True

    def _play(self, tx: Open, drawn: dict[str, Any]) -> tuple[str, Statement | None]:
        """The SQL of a drawn statement, and what it does; ``None``: the database must refuse it."""
        candidates = [t for t in self.schema.tables if t is not AUDIT]
        table = candidates[drawn["table"] % len(candidates)]
        idents = [ident_of(table, n) for n in drawn["idents"]]
        attempt = Statement(self.model, tx)
        values = self._values(table, drawn["values"])
        what = drawn["what"]
        try:
            if what == "insert":
                text = insert_sql(table, idents[0], values)
                attempt.insert(table, idents[0], values)
            elif what == "delete":
                text = delete_sql(table, idents)
                attempt.delete(table, idents)
            elif what == "rekey":
                if table.partitioned:
                    return "", None
                new = ident_of(table, drawn["values"][0] % 6)
                text = rekey_sql(table, idents[0], new)
                if new != idents[0]:
                    attempt.rekey(table, idents[0], new)
                else:
                    attempt.update(table, [new], {})
            else:
                add: dict[str, int] = {}
                if what == "add" and table.additive:
                    values, add = {}, {"n_a": drawn["values"][0] - 2}
                elif what == "point" and table.references:
                    names = [r.column for r in table.references]
                    values = {name: value for name, value in values.items() if name in names}
                else:
                    chosen = sorted(values)[drawn["values"][0] % len(values) :][:2]
                    values = {name: values[name] for name in chosen}
                if table.unique in values:
                    idents = idents[:1]
                text = update_sql(table, idents, values, add)
                attempt.update(table, idents, values, add=add)
            attempt.check(deferred=False)
        except Refusal:
            return text, None
        return text, attempt

    def _values(self, table: Table, drawn: list[int]) -> Row:
        values: Row = {}
        parents = {r.column: r.parent for r in table.references}
        for n, (name, kind) in enumerate(table.columns.items()):
            pick = drawn[n % len(drawn)] + n // len(drawn)
            if name in parents:
                parent = self.schema.table(parents[name])
                values[name] = None if pick % 7 == 6 else ident_of(parent, pick % 6)
            elif kind == COUNT:
                values[name] = None if pick % 7 == 6 else str(pick * 3)
            else:
                values[name] = PALETTE[kind][pick % len(PALETTE[kind])]
        return values

    # The product.

    def tick(self) -> None:
        position = journal.tick(self.desk.recoverer)
        self.ticks.append((position, dict(self.model.committed), self.model.clock))
        assert journal.gaps(self.desk.recoverer) == []
        self.desk.recoverer.rollback()

    def capture(self, method: str, which: int) -> None:
        base = self.points[which % len(self.points)][0] if self.points and method != "full" else None
        if base is None and method in ("journal", "scan"):
            return
        point = capture.capture(
            self.desk.dsn("capturer"),
            self.desk.specs,
            {},
            NoPlatform(),
            self.store,
            app="m",
            base=base,
            method=method,  # type: ignore[arg-type]
        )
        self._did(f"captured {point.tables[0].method}")
        assert self._read(point) == self.model.committed
        self.points.append((point, dict(self.model.committed), self.model.clock))

    def _read(self, point: RecoveryPoint) -> State:
        found: State = {}
        for manifest in point.tables:
            table = self.schema.table(manifest.name.removeprefix("m."))
            for batch in reading.batches(self.store, manifest):
                for row in batch.to_pylist():
                    texts = {name: text_of(row[name]) for name in table.names}
                    found[table.name, str(texts["id"])] = texts
        return found

    def undo(self, by: list[str], which: list[int], policy: str) -> None:
        """Select by all of ``by`` together; what they name is picked from what is there."""
        known = [t for t in self.model.transactions if t.keys and not t.forgotten]
        if not known:
            return
        picked = [known[-1 - n % len(known)] for n in which]
        table = self.schema.tables[which[0] % len(self.schema.tables)]
        given: dict[str, Any] = {}
        if "runs" in by:
            runs = sorted({(t.actor, t.run) for t in picked if t.run})
            given["runs"] = tuple(RunRef(actor=actor, run=run) for actor, run in runs)
        if "transactions" in by:
            given["xids"] = tuple(sorted(t.xid for t in {t.xid: t for t in picked}.values()))
        if "actors" in by:
            given["actors"] = tuple(sorted({t.actor for t in picked}))
        if "window" in by and self.ticks:
            since, until = sorted(n % len(self.ticks) for n in (which[0], which[-1]))
            given["since"] = self.ticks[since][0]
            until = max(until, since + 1)
            given["until"] = self.ticks[until][0] if until < len(self.ticks) else None
        if "table" in by:
            given["only"] = (f"m.{table.name}",)
        if "rows" in by:
            key = next((key for key in sorted(picked[0].keys)), (table.name, ""))
            text = key[1].replace("'", "''")
            given["where"] = ((f"m.{key[0]}", f"r.id::text = '{text}'"),)
        spec = UndoSpec(
            **{"tables": self.desk.specs, "runs": (), "policy": Policy(policy), **given},
            max_deleted_share=1.0,
            drift_rows=0,
        )
        if not spec.selects:
            return
        if spec.policy is Policy.CASCADE:
            if spec.limited_to:
                return
            spec, found = undo.cascade(self.desk.capturer, spec)
            self.desk.capturer.rollback()
            self._did(f"cascaded to {'more' if found else 'nothing'}")
        self._undo(spec, " and ".join(sorted(given)))

    def steps(self) -> list[Transaction]:
        """What the product itself wrote, as far as the journal still knows it."""
        return [t for t in self.model.transactions if t.actor == "recoverer" and t.keys and not t.forgotten]

    def undo_step(self, which: int, policy: str) -> None:
        if steps := self.steps():
            step = steps[-1 - which % len(steps)]
            refs = (RunRef(actor="recoverer", run=step.run),)
            spec = UndoSpec(
                tables=self.desk.specs, runs=refs, policy=Policy(policy), max_deleted_share=1.0, drift_rows=0
            )
            self._undo(spec, "its recovery")

    def _selected(self, spec: UndoSpec) -> Selected:
        """What the selection says, read off the model."""
        clock = {position.snapshot: at for position, _, at in self.ticks}
        known = {t.number: t for t in self.model.transactions}

        def chosen(number: int, key: Key) -> bool:
            tx, table = known[number], f"m.{key[0]}"
            where = dict(spec.where)
            return not tx.forgotten and all(
                (
                    not spec.runs
                    or any(tx.xid in r.xids or (r.run and (r.actor, r.run) == (tx.actor, tx.run)) for r in spec.runs),
                    not spec.xids or tx.xid in spec.xids,
                    not spec.actors or tx.actor in spec.actors,
                    spec.since is None or tx.ended > clock[spec.since.snapshot],
                    spec.until is None or tx.ended <= clock[spec.until.snapshot],
                    not spec.limited_to or table in spec.limited_to,
                    table not in where or where[table] == "r.id::text = '" + key[1].replace("'", "''") + "'",
                )
            )

        return chosen

    def _undo(self, spec: UndoSpec, how: str) -> None:
        selected = self._selected(spec)
        expected, kinds = undone(self.model, selected, keep_later=spec.policy is Policy.KEEP_LATER)
        planned = undo.preview(self.desk.capturer, spec)
        if self.pruned_at >= 0 and any("complete only since" in problem for problem in planned.problems):
            self._did("refused what was pruned")
            return
        if spec.policy in (Policy.REFUSE, Policy.CASCADE) and kinds:
            assert planned.problems, f"{how}: {spec.policy} accepts {kinds}"
            self._did("refused a conflict")
            return
        assert planned.problems == (), f"{how}: {planned.problems}, though the model meets {kinds or 'no conflict'}"
        self.count += 1
        name = f"rec-{self.count}"
        try:
            done = undo.apply(
                self.desk.recoverer,
                spec,
                recovery_id=name,
                step="undo",
                plan_hash="h",
                expected=planned.counts,
                lock_timeout_s=BUSY_S,
            )
        except UndoBusy:
            assert self.open, "nobody holds a lock"
            self._did("busy")
            return
        live = self.model.committed
        both = live.keys() & expected.keys()
        wanted = (len(live.keys() - expected.keys()), sum(live[k] != expected[k] for k in both))
        wanted = (*wanted, len(expected.keys() - live.keys()))
        found = tuple(sum(getattr(c, what) for c in planned.counts) for what in ("delete", "update", "insert"))
        assert found == wanted, f"{how}: deletes, updates, inserts are {found} instead of {wanted}"
        self._took_effect(expected, name, done.xid, f"undid by {how}")

    def restore_point(self, which: int, source: str) -> None:
        if self.points:
            point, state, at = self.points[which % len(self.points)]
            self._restore(point, state, source, may_refuse=source == "journal" and at <= self.pruned_at)

    def restore_tick(self, which: int) -> None:
        if self.ticks:
            position, state, at = self.ticks[which % len(self.ticks)]
            self._restore(position, state, "journal", may_refuse=at <= self.pruned_at)

    def _restore(self, target: Any, state: State, source: str, *, may_refuse: bool) -> None:
        self.count += 1
        name = f"rec-{self.count}"
        caps = restore.Caps(max_deleted_share=1.0)
        try:
            with_plan = restore.plan(self.desk.recoverer, target, self.store, self.desk.specs, source=source)
            assert with_plan.problems == ()
            done = restore.apply(
                self.desk.recoverer,
                target,
                self.store,
                self.desk.specs,
                recovery_id=name,
                step="restore",
                plan_hash=with_plan.hash,
                source=source,
                caps=caps,
            )
        except (Busy, UndoBusy):
            assert self.open, "nobody holds a lock"
            self._did("busy")
            return
        except (Incomplete, Refused):
            if not may_refuse:
                raise
            self._did("refused what was pruned")
            return
        self._took_effect(dict(state), name, done.xid, f"restored by {source}")

    def _took_effect(self, state: State, name: str, xid: int, what: str) -> None:
        self.model.replace(state, actor="recoverer", run=name, xid=xid)
        self.dirty = True
        self._did(what)

    def old_enough(self) -> bool:
        return len(self.ticks) > 1 and len(self.model.transactions) > 25

    def prune_journal(self) -> None:
        journal.prune(self.desk.recoverer, retention=timedelta(0))
        left: set[int] = set()
        with self.desk.capturer.transaction():
            for (twin,) in self.desk.capturer.execute("SELECT twin FROM reinstate.journal_table").fetchall():
                query = f"SELECT DISTINCT rj_xid::text::bigint FROM reinstate.{twin}"
                left |= {row[0] for row in self.desk.capturer.execute(query.encode())}
        for tx in self.model.transactions:
            if tx.keys and not tx.forgotten and tx.xid not in left:
                tx.forgotten = True
                assert tx.ended <= self.ticks[-1][2], "a transaction that no tick had seen was forgotten"
        self.pruned_at = self.ticks[-1][2]
        self._did("pruned the journal")

    def prune_store(self, keep: int) -> None:
        """No grace for young pieces: nobody captures meanwhile. Every point that stays can still be read."""
        before = [point.id for point, _, _ in self.points]
        pruned = retention.prune(self.store, "m", KeepLast(last=keep), dry_run=False, grace_s=-1)
        assert pruned.problems == ()
        assert sorted(pruned.kept) == sorted(before)[-keep:]
        self.points = [known for known in self.points if known[0].id in pruned.kept]
        for point, state, _ in self.points:
            assert points.audit(self.store, point) == ()
            assert self._read(point) == state
        self._did("pruned the store")


@dataclass(frozen=True, kw_only=True)
class KeepLast:
    last: int
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


def ident_of(table: Table, n: int) -> str:
    return TEXT_IDS[n] if table.key_type == "text" else str(n)


def text_of(value: Any) -> str | None:
    """A value of a point as the server prints it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, float):
        return "NaN" if value != value else {"-0.0": "-0"}.get(repr(value), repr(value))  # noqa: PLR0124
    return str(value)


def _last_value(cursor: psycopg.Cursor[Any]) -> int:
    """Of several results in one answer, the number in the last one that has rows."""
    found = 0
    while True:
        if cursor.description:
            row = cursor.fetchone()
            if row and len(row) == 1:
                found = int(row[0])
        if not cursor.nextset():
            return found


def differences(got: State, wanted: State) -> list[tuple[Key, str, str | None, str | None]]:
    """Column by column, what the database has and what it should have."""
    return [
        (key, name, got.get(key, {}).get(name), wanted.get(key, {}).get(name))
        for key in sorted({*got, *wanted})
        for name in {**got.get(key, {}), **wanted.get(key, {})}
        if got.get(key, {}).get(name) != wanted.get(key, {}).get(name)
    ]
