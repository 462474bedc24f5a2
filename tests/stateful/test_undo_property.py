"""Random interleavings of actors, a random selection undone: the rows are what a plain-Python fold of the rule says.

Also: once everything entangled is selected too, no created row is left that someone edited; and undoing the undo gives
what was before it, with whatever others did in between, byte for byte, however often.

The model never reads the journal. It sees what each transaction itself saw of its rows before and after, and walks
the changes of a key one by one, where the product computes in sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from snapshots import database
from snapshots.journal import install
from snapshots.model import Policy, RunRef, TableSpec, UndoSpec
from snapshots.undo import undo

pytestmark = pytest.mark.postgres

PARENTS = TableSpec(name="zoo.parents", key=("id",))
ROWS = TableSpec(
    name="zoo.rows",
    key=("id",),
    additive=("stock", "amount"),
    suppress=("rows_echo", "rows_touch"),
    references=((("parent",), "zoo.parents", ("id",)),),
)
COLUMNS = {
    "zoo.parents": ("id", "label"),
    "zoo.rows": (
        *("id", "parent", "name", "tags", "doc", "stock", "amount", "price", "mood", "seen", "code", "touched", "echo"),
    ),
}
SCHEMA = """
CREATE SCHEMA zoo;
CREATE TYPE zoo.mood AS ENUM ('calm', 'wild');
CREATE TABLE zoo.parents (id int PRIMARY KEY, label text);
CREATE TABLE zoo.rows (
    id int PRIMARY KEY, parent int REFERENCES zoo.parents (id), name text, tags int[], doc jsonb, stock int,
    amount numeric, price numeric, mood zoo.mood, seen timestamptz, code character(3), touched int NOT NULL DEFAULT 0,
    echo text
);
CREATE FUNCTION zoo.touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER rows_touch BEFORE UPDATE ON zoo.rows FOR EACH ROW EXECUTE FUNCTION zoo.touch();
CREATE FUNCTION zoo.echo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE zoo.rows SET echo = 'said ' || NEW.name WHERE id = NEW.id AND echo IS DISTINCT FROM 'said ' || NEW.name;
    RETURN NULL;
END $$;
CREATE TRIGGER rows_echo AFTER INSERT OR UPDATE ON zoo.rows FOR EACH ROW EXECUTE FUNCTION zoo.echo();
GRANT USAGE ON SCHEMA zoo TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA zoo TO capturer;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA zoo TO recoverer, ann, bob;
"""
ADDITIVE = ("stock", "amount")
KEYS = 3

Row = dict[str, str | None]
Key = tuple[str, int]
State = dict[Key, Row]


@dataclass(frozen=True)
class Change:
    tx: int
    before: Row | None
    after: Row | None


@dataclass
class Zoo:
    app: Any
    connections: dict[str, psycopg.Connection[Any]]
    history: dict[Key, list[Change]] = field(default_factory=dict)
    xids: dict[int, int] = field(default_factory=dict)

    def read(self, role: str, parities: tuple[int, ...] = (0, 1)) -> State:
        """Rows of the given halves, each column as text, as ``role`` sees them now."""
        state: State = {}
        for table, columns in COLUMNS.items():
            texts = ", ".join(f"{name}::text" for name in columns)
            query = f"SELECT id, ARRAY[{texts}] FROM {table} WHERE id %% 2 = ANY(%s)"
            for key, values in self.connections[role].execute(query.encode(), (list(parities),)):
                state[table, key] = dict(zip(columns, values, strict=True))
        return state

    def reset(self) -> None:
        for conn in self.connections.values():
            conn.rollback()
        owner = self.connections["installer"]
        with owner.transaction():
            owner.execute("TRUNCATE zoo.rows, zoo.parents")
            owner.execute("INSERT INTO zoo.parents SELECT n, 'p' FROM generate_series(0, 3) n")
            owner.execute(
                "INSERT INTO zoo.rows (id, parent, name, stock, amount, tags, doc, price) "
                "SELECT n, n, 'first', 10, 5.0, '{1}', '{}', 1.10 FROM generate_series(0, 3) n"
            )
            for (twin,) in owner.execute("SELECT twin FROM reinstate.journal_table").fetchall():
                owner.execute(f"TRUNCATE reinstate.{twin}".encode())
            owner.execute("DELETE FROM reinstate.applied")
        self.history, self.xids = {}, {}


@pytest.fixture(scope="module")
def zoo(module_app_db: Any) -> Iterator[Zoo]:
    for role in ("ann", "bob"):
        module_app_db.role(role)
    with psycopg.connect(module_app_db.installer, autocommit=True) as owner:
        owner.execute(SCHEMA.encode())
    roles = ("installer", "capturer", "recoverer", "ann", "bob")
    connections = {role: database.connect(module_app_db.dsn(role), purpose="test") for role in roles}
    install.install(connections["installer"], (PARENTS, ROWS), capturer="capturer", recoverer="recoverer")
    yield Zoo(app=module_app_db, connections=connections)
    for conn in connections.values():
        conn.close()


VALUES: dict[str, list[str]] = {
    "name": ["'a'", "'b'", "''", "NULL", "repeat('long ', 900)"],
    "tags": ["'{}'", "'{1,2}'", "'{{1},{2}}'", "'[3:4]={7,NULL}'", "NULL"],
    "doc": ["'{\"x\": 1.0}'", "'{\"x\": 1.00}'", "'[]'", "NULL"],
    "stock": ["stock + 3", "stock - 1", "stock * 2", "7", "NULL"],
    "amount": ["amount + 0.10", "amount - 1", "coalesce(amount, 0)"],
    "price": ["1.1", "1.10", "'NaN'", "'Infinity'"],
    "mood": ["'calm'", "'wild'", "NULL"],
    "seen": ["'infinity'", "'2026-01-01 00:00:00.000001+00'", "'4713-01-01 BC'", "NULL"],
    "code": ["'x'", "'xy '", "NULL"],
}


@st.composite
def operations(draw: st.DrawFn, parities: tuple[int, ...]) -> str:
    parity = draw(st.sampled_from(parities))
    key = draw(st.integers(0, KEYS - 1)) * 2 + parity
    parent = draw(st.integers(0, 1)) * 2 + parity
    kind = draw(st.sampled_from(["update"] * 6 + ["insert", "delete", "repoint", "parent", "drop"]))
    if kind == "update":
        chosen = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True))
        sets = ", ".join(f"{name} = {draw(st.sampled_from(VALUES[name]))}" for name in chosen)
        return f"UPDATE zoo.rows SET {sets} WHERE id = {key}"
    if kind == "insert":
        return f"INSERT INTO zoo.rows (id, parent, name, stock, amount) VALUES ({key}, {parent}, 'new', 1, 1.5)"
    if kind == "delete":
        return f"DELETE FROM zoo.rows WHERE id = {key}"
    if kind == "repoint":
        return f"UPDATE zoo.rows SET parent = {parent} WHERE id = {key}"
    if kind == "parent":
        return f"INSERT INTO zoo.parents VALUES ({parent}, 'p') ON CONFLICT (id) DO UPDATE SET label = 'again'"
    return f"DELETE FROM zoo.parents WHERE id = {parent}"


Step = tuple[list[str], list[str] | None, list[str]]


@st.composite
def scripts(draw: st.DrawFn) -> list[Step]:
    """Transactions, some of them in pairs that are open at once, each on its own half of the keys. Once the second
    has committed, the first goes on with the other half: it began earlier and writes later."""
    script: list[Step] = []
    for _ in range(draw(st.integers(2, 9))):
        if draw(st.booleans()):
            pair = [draw(st.lists(operations((parity,)), min_size=1, max_size=3)) for parity in (0, 1)]
            script.append((pair[0], pair[1], draw(st.lists(operations((1,)), max_size=2))))
        else:
            script.append((draw(st.lists(operations((0, 1)), min_size=1, max_size=3)), None, []))
    return script


def _begin(zoo: Zoo, role: str, tx: int) -> None:
    """Open a transaction and give it its number: order of numbers, of writes and of commits shall differ."""
    query = "SELECT set_config('reinstate.run', %s, true), pg_current_xact_id()"
    zoo.connections[role].execute(query, (f"run-{tx}",))


def _do(zoo: Zoo, role: str, statement: str) -> None:
    try:
        with zoo.connections[role].transaction():
            zoo.connections[role].execute(statement.encode())
    except psycopg.errors.IntegrityError:
        return


def _end(zoo: Zoo, role: str, tx: int, parities: tuple[int, ...], before: State) -> None:
    after = zoo.read(role, parities)
    row = zoo.connections[role].execute("SELECT pg_current_xact_id()::text").fetchone()
    zoo.xids[tx] = int(row[0]) if row else 0
    zoo.connections[role].commit()
    for key in {*before, *after}:
        if before.get(key) != after.get(key):
            zoo.history.setdefault(key, []).append(Change(tx=tx, before=before.get(key), after=after.get(key)))


def play(zoo: Zoo, script: list[Step], first: int = 0) -> int:
    """Run the script; returns the number of the next transaction."""
    tx = first
    for one, other, tail in script:
        if other is None:
            role = "ann" if tx % 3 else "bob"
            _begin(zoo, role, tx)
            before = zoo.read(role)
            for statement in one:
                _do(zoo, role, statement)
            _end(zoo, role, tx, (0, 1), before)
            tx += 1
            continue
        _begin(zoo, "ann", tx)
        _begin(zoo, "bob", tx + 1)
        befores = zoo.read("ann", (0,)), zoo.read("bob", (1,))
        for n in range(max(len(one), len(other))):
            for role, statements in (("ann", one), ("bob", other)):
                if n < len(statements):
                    _do(zoo, role, statements[n])
        _end(zoo, "bob", tx + 1, (1,), befores[1])
        before = {**befores[0], **zoo.read("ann", (1,))}
        for statement in tail:
            _do(zoo, "ann", statement)
        _end(zoo, "ann", tx, (0, 1), before)
        tx += 2
    return tx


def _add(start: str, deltas: list[tuple[str | None, str | None]]) -> str:
    from decimal import Decimal

    total = Decimal(start)
    for before, after in deltas:
        assert before is not None
        assert after is not None
        total += Decimal(after) - Decimal(before)
    return format(total, "f")


def fold(changes: list[Change], selected: set[int]) -> tuple[Row | None, bool]:
    """The wanted row, and whether a conflict forbids touching it. Walks the changes in order."""
    start = next(n for n, change in enumerate(changes) if change.tx in selected)
    state = changes[start].before
    edits: list[Change] = []
    conflict = False
    for change in changes[start:]:
        if change.tx in selected:
            continue
        if change.before is None:
            conflict = state is not None
            state, edits = change.after, []
        elif change.after is None:
            state, edits, conflict = None, [], False
        elif state is None:
            conflict = True
        else:
            edits.append(change)
    if state is None:
        return None, conflict
    wanted = dict(state)
    for name in wanted:
        touched = [
            (c.before[name], c.after[name]) for c in edits if c.before and c.after and c.before[name] != c.after[name]
        ]
        if not touched:
            continue
        values = [value for pair in touched for value in pair]
        began = state[name]
        if name in ADDITIVE and began is not None and None not in values:
            wanted[name] = _add(began, touched)
        else:
            wanted[name] = touched[-1][1]
    return wanted, conflict


def model(history: dict[Key, list[Change]], live: State, selected: set[int]) -> State:
    """Live rows after the undo, under the policy that leaves conflicting rows alone."""
    wanted: dict[Key, Row | None] = {}
    for key, changes in history.items():
        if any(change.tx in selected for change in changes):
            row, conflict = fold(changes, selected)
            if not conflict and row != live.get(key):
                wanted[key] = row
    while True:
        after = {key: row for key, row in {**live, **wanted}.items() if row is not None}
        needed = {
            int(row["parent"]) for key, row in after.items() if key[0] == "zoo.rows" and row["parent"] is not None
        }
        kept = [key for key, row in wanted.items() if key[0] == "zoo.parents" and row is None and key[1] in needed]
        if not kept:
            orphans = [
                key
                for key, row in wanted.items()
                if key[0] == "zoo.rows"
                and row is not None
                and row["parent"] is not None
                and ("zoo.parents", int(row["parent"])) not in after
            ]
            if not orphans:
                return after
            kept = orphans
        for key in kept:
            del wanted[key]


def _differences(got: State, wanted: State) -> list[tuple[Key, str, str | None, str | None]]:
    return [
        (key, name, row.get(name), wanted.get(key, {}).get(name))
        for key, row in {**{key: {} for key in wanted}, **got}.items()
        for name in COLUMNS[key[0]]
        if row.get(name) != wanted.get(key, {}).get(name)
    ]


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(script=scripts(), later=scripts(), chosen=st.lists(st.booleans(), min_size=18, max_size=18))
def test_undo_equals_the_model(zoo: Zoo, script: Any, later: Any, chosen: list[bool]) -> None:
    zoo.reset()
    count = play(zoo, script)
    selected = {n for n in range(count) if chosen[n]} & {
        change.tx for changes in zoo.history.values() for change in changes
    }
    wrote = sorted(selected)
    spec = UndoSpec(
        tables=(PARENTS, ROWS),
        runs=tuple(RunRef(actor="?", run=None, xids=(zoo.xids[n],)) for n in wrote if n % 2)
        + tuple(RunRef(actor=role, run=f"run-{n}") for n in wrote if not n % 2 for role in ("ann", "bob")),
        policy=Policy.NON_CONFLICTING_ONLY,
        max_deleted_share=1.0,
    )
    live = zoo.read("capturer")
    zoo.connections["capturer"].rollback()
    expected = model(zoo.history, live, selected)
    planned = undo.preview(zoo.connections["capturer"], spec)
    assert planned.problems == ()
    closed, _ = undo.cascade(zoo.connections["capturer"], spec, whole_runs=False)
    assert "created-then-edited" not in undo.preview(zoo.connections["capturer"], closed).conflict_counts
    call = {"recovery_id": "rec", "plan_hash": "h"}
    done = undo.apply(zoo.connections["recoverer"], spec, step="1", expected=planned.counts, **call)
    assert _differences(zoo.read("recoverer"), expected) == []
    zoo.connections["recoverer"].rollback()
    assert sum(c.delete + c.insert for c in planned.counts) == len(set(live) ^ set(expected))
    assert sum(c.update for c in planned.counts) == sum(live[k] != expected[k] for k in set(live) & set(expected))

    play(zoo, later, first=count)
    again = replace(spec, cancelled=(done.xid,))
    settled = zoo.read("capturer")
    zoo.connections["capturer"].rollback()
    left = undo.preview(zoo.connections["capturer"], again)
    assert left.problems == ()
    if planned.conflict_counts.keys() <= {"later-same-column", "row-gone"}:
        assert left.empty, left
        undo.apply(zoo.connections["recoverer"], again, step="2", expected=left.counts, **call)
        assert _differences(zoo.read("recoverer"), settled) == []
        zoo.connections["recoverer"].rollback()


def _recovered(*recoveries: str) -> UndoSpec:
    return UndoSpec(
        tables=(PARENTS, ROWS),
        runs=tuple(RunRef(actor="recoverer", run=recovery) for recovery in recoveries),
        policy=Policy.NON_CONFLICTING_ONLY,
        max_deleted_share=1.0,
    )


def _written(zoo: Zoo, tx: int, spec: UndoSpec, recovery: str) -> State:
    """Undo, tell the model as transaction ``tx``; returns the rows."""
    role = "recoverer"
    before = zoo.read(role)
    zoo.connections[role].rollback()
    planned = undo.preview(zoo.connections["capturer"], spec)
    assert planned.problems == ()
    done = undo.apply(
        zoo.connections[role], spec, recovery_id=recovery, step="1", plan_hash="h", expected=planned.counts
    )
    after = zoo.read(role)
    zoo.connections[role].rollback()
    zoo.xids[tx] = done.xid
    for key in {*before, *after}:
        if before.get(key) != after.get(key):
            zoo.history.setdefault(key, []).append(Change(tx=tx, before=before.get(key), after=after.get(key)))
    return after


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(script=scripts(), between=scripts(), chosen=st.lists(st.booleans(), min_size=18, max_size=18))
def test_an_undo_of_an_undo_equals_the_model(zoo: Zoo, script: Any, between: Any, chosen: list[bool]) -> None:
    zoo.reset()
    count = play(zoo, script)
    wrote = sorted({n for n in range(count) if chosen[n]} & {c.tx for cs in zoo.history.values() for c in cs})
    live = zoo.read("capturer")
    zoo.connections["capturer"].rollback()
    first = replace(_recovered(), runs=tuple(RunRef(actor="?", run=None, xids=(zoo.xids[n],)) for n in wrote))
    undone = _written(zoo, count, first, "R0")
    assert _differences(_written(zoo, count + 1, _recovered("R0"), "R1"), live) == []
    assert _differences(_written(zoo, count + 2, _recovered("R1"), "R2"), undone) == []

    last = play(zoo, between, first=count + 3)
    now = zoo.read("capturer")
    zoo.connections["capturer"].rollback()
    expected = model(zoo.history, now, {count + 2})
    assert _differences(_written(zoo, last, _recovered("R2"), "R3"), expected) == []
