"""What every row must be, in plain Python: writes with the app's triggers, undo by the rule, restore.

The model never reads the journal or the store. It computes what the actors' statements do, keeps each row's history
of changes, and walks those changes one by one where the product computes in sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from data_schemas import Reference, Schema, Table

Row = dict[str, str | None]
Key = tuple[str, str]
"""Table and id."""
State = dict[Key, Row]
Selected = Callable[[int, Key], bool]
"""Whether the change of a key by a transaction is to be undone."""


@dataclass(frozen=True)
class Change:
    tx: int
    before: Row | None
    after: Row | None


@dataclass
class Transaction:
    """One that committed. ``began`` and ``ended`` are moments of the model's clock."""

    number: int
    xid: int
    actor: str
    run: str
    began: int
    ended: int
    keys: frozenset[Key]
    forgotten: bool = False
    """Pruned from the journal."""


@dataclass
class Open:
    """A transaction in progress: what it changed so far, and the states its savepoints would return to."""

    actor: str
    run: str
    tag: str
    began: int
    changes: dict[Key, Row | None] = field(default_factory=dict)
    saved: list[dict[Key, Row | None]] = field(default_factory=list)


class Refusal(Exception):
    """The database cannot accept this statement."""


class Model:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.committed: State = {}
        self.history: dict[Key, list[Change]] = {}
        self.transactions: list[Transaction] = []
        self.clock = 0

    def commit(self, tx: Open, xid: int) -> Transaction | None:
        """Make its changes everybody's; ``None`` when nothing is different after it."""
        number = len(self.transactions)
        self.clock += 1
        changed: set[Key] = set()
        for key, after in tx.changes.items():
            before = self.committed.get(key)
            if before == after:
                continue
            changed.add(key)
            self.history.setdefault(key, []).append(Change(tx=number, before=before, after=after))
            if after is None:
                del self.committed[key]
            else:
                self.committed[key] = after
        made = Transaction(
            number=number,
            xid=xid,
            actor=tx.actor,
            run=tx.run,
            began=tx.began,
            ended=self.clock,
            keys=frozenset(changed),
        )
        self.transactions.append(made)
        return made if changed else None

    def replace(self, wanted: State, *, actor: str, run: str, xid: int) -> Transaction | None:
        """A data step of the product made the rows what ``wanted`` says."""
        tx = Open(actor=actor, run=run, tag="", began=self.clock)
        tx.changes = {key: wanted.get(key) for key in {*wanted, *self.committed}}
        return self.commit(tx, xid)

    def view(self, tx: Open) -> State:
        return {key: row for key, row in {**self.committed, **tx.changes}.items() if row is not None}


class Statement:
    """One statement of an actor, played on a copy of what it sees; ``changes`` is what it did."""

    def __init__(self, model: Model, tx: Open) -> None:
        self.schema = model.schema
        self.tag = tx.tag
        self.seen = model.view(tx)
        self.changes: dict[Key, Row | None] = {}

    def insert(self, table: Table, ident: str, values: Row) -> None:
        if (table.name, ident) in self.seen:
            raise Refusal
        row: Row = {"id": ident}
        if table.partitioned:
            row["half"] = str(int(ident) % 2)
        row |= {name: values.get(name) for name in table.columns}
        if table.touch:
            row["touched"] = "0"
        if table.echo:
            row["echo"] = None
        self._put((table.name, ident), row)
        self._after(table, ident, "INSERT")

    def update(self, table: Table, idents: Iterable[str], values: Row, *, add: Mapping[str, int] | None = None) -> int:
        there = [ident for ident in idents if (table.name, ident) in self.seen]
        for ident in there:
            row = dict(self.seen[table.name, ident]) | values
            for name, by in (add or {}).items():
                old = row[name]
                row[name] = None if old is None else str(int(old) + by)
            self._update(table, ident, row)
        for ident in there:
            self._after(table, ident, "UPDATE")
        return len(there)

    def rekey(self, table: Table, ident: str, new: str) -> int:
        if (table.name, ident) not in self.seen:
            return 0
        if (table.name, new) in self.seen:
            raise Refusal
        row = dict(self.seen[table.name, ident]) | {"id": new}
        self._put((table.name, ident), None)
        if table.touch:
            row["touched"] = str(int(row["touched"] or 0) + 1)
        self._put((table.name, new), row)
        self._after(table, new, "UPDATE")
        return 1

    def delete(self, table: Table, idents: Iterable[str]) -> int:
        gone = [ident for ident in idents if (table.name, ident) in self.seen]
        for ident in gone:
            self._put((table.name, ident), None)
        for ident in gone:
            for child, reference in self._referring(table):
                self._act(child, reference, ident)
            self._audit(table, ident, "DELETE")
        return len(gone)

    def check(self, *, deferred: bool) -> None:
        """Raise Refusal where a row names a parent that is not there, or a unique value is there twice."""
        for key, row in self.seen.items():
            table = self.schema.table(key[0])
            for reference in table.references:
                value = row[reference.column]
                if reference.deferred == deferred and value is not None and (reference.parent, value) not in self.seen:
                    raise Refusal
        for table in self.schema.tables:
            if table.unique and not deferred:
                values = [
                    row[table.unique] for key, row in self.seen.items() if key[0] == table.name and row[table.unique]
                ]
                if len(values) != len(set(values)):
                    raise Refusal

    def _put(self, key: Key, row: Row | None) -> None:
        self.changes[key] = row
        if row is None:
            del self.seen[key]
        else:
            self.seen[key] = row

    def _update(self, table: Table, ident: str, row: Row) -> None:
        if table.touch:
            row["touched"] = str(int(row["touched"] or 0) + 1)
        self._put((table.name, ident), row)

    def _after(self, table: Table, ident: str, operation: str) -> None:
        self._audit(table, ident, operation)
        row = self.seen[table.name, ident]
        first = next(iter(table.columns), "")
        if table.echo and row["echo"] != row[first]:
            self._update(table, ident, dict(row) | {"echo": row[first]})
            self._after(table, ident, "UPDATE")

    def _audit(self, table: Table, ident: str, operation: str) -> None:
        if table.audit:
            name = f"{self.tag} {table.name} {ident} {operation}"
            self.seen["audit", name] = self.changes["audit", name] = {"id": name}

    def _referring(self, parent: Table) -> list[tuple[Table, Reference]]:
        return [(t, r) for t in self.schema.tables for r in t.references if r.parent == parent.name]

    def _act(self, child: Table, reference: Reference, ident: str) -> None:
        naming = [key[1] for key, row in self.seen.items() if key[0] == child.name and row[reference.column] == ident]
        if reference.on_delete == "CASCADE":
            self.delete(child, naming)
        elif reference.on_delete == "SET NULL":
            self.update(child, naming, {reference.column: None})


def fold(table: Table, changes: list[Change], selected: Callable[[int], bool]) -> tuple[Row | None, str | None]:
    """The wanted row, and which conflict stands against touching it. Walks the changes in order."""
    start = next(n for n, change in enumerate(changes) if selected(change.tx))
    state = changes[start].before
    edits: list[Change] = []
    conflict: str | None = None
    for change in changes[start:]:
        if selected(change.tx):
            continue
        if change.before is None:
            conflict = "key-taken" if state is not None else None
            state, edits = change.after, []
        elif change.after is None:
            state, edits, conflict = None, [], None
        elif state is None:
            conflict = "created-then-edited"
        else:
            edits.append(change)
    if state is None:
        return None, conflict
    wanted = dict(state)
    for name in wanted:
        touched = [
            (c.before[name], c.after[name]) for c in edits if c.before and c.after and c.before[name] != c.after[name]
        ]
        began = state[name]
        if not touched:
            continue
        if name in table.additive and began is not None and not any(None in pair for pair in touched):
            wanted[name] = str(int(began) + sum(int(b or 0) - int(a or 0) for a, b in touched))
        else:
            wanted[name] = touched[-1][1]
    return wanted, conflict


def undone(model: Model, selected: Selected, *, keep_later: bool) -> tuple[State, set[str]]:
    """Rows after an undo that leaves conflicting rows as they are, and the kinds of blocking conflict it meets."""
    live = model.committed
    wanted: dict[Key, Row | None] = {}
    kinds: set[str] = set()
    for key, changes in model.history.items():
        if not any(selected(change.tx, key) for change in changes):
            continue
        row, conflict = fold(model.schema.table(key[0]), changes, lambda tx, key=key: selected(tx, key))  # type: ignore[misc]
        if conflict == "created-then-edited" or (conflict == "key-taken" and not keep_later):
            kinds.add(conflict)
        elif row != live.get(key):
            wanted[key] = row
    while _keep_whole(model.schema, live, wanted, kinds):
        pass
    return _with(live, wanted), kinds


def _with(live: State, wanted: Mapping[Key, Row | None]) -> State:
    return {key: row for key, row in {**live, **wanted}.items() if row is not None}


def _keep_whole(schema: Schema, live: State, wanted: dict[Key, Row | None], kinds: set[str]) -> bool:
    """Drop from ``wanted`` what would leave a reference dangling or a unique value twice; whether any was dropped."""
    before = len(wanted)
    relations = sorted(
        ((t.name, r.parent, r.column) for t in schema.tables for r in t.references),
    )
    for child, parent, column in relations:
        after = _with(live, wanted)
        needed = {row[column] for key, row in after.items() if key[0] == child}
        for key in [k for k, row in wanted.items() if k[0] == parent and row is None and k[1] in needed]:
            del wanted[key]
            kinds.add("referenced")
    for child, parent, column in relations:
        after = _with(live, wanted)
        lost = [
            key
            for key, row in wanted.items()
            if key[0] == child
            and row is not None
            and row[column] is not None
            and (key not in live or live[key][column] != row[column])
            and (parent, row[column]) not in after
        ]
        for key in lost:
            del wanted[key]
            kinds.add("parent-gone")
    for table in schema.tables:
        if table.unique:
            after = _with(live, wanted)
            claims = [
                (key, row[table.unique])
                for key, row in wanted.items()
                if key[0] == table.name
                and row is not None
                and row[table.unique] is not None
                and (key not in live or live[key][table.unique] != row[table.unique])
            ]
            for key, value in claims:
                if any(k != key and k[0] == table.name and r[table.unique] == value for k, r in after.items()):
                    del wanted[key]
                    kinds.add("key-taken")
    return len(wanted) != before
