"""What a SQL text of a workflow reads and writes, by table and column. Pure: nothing is run, nothing is asked.

A real parser reads it, after the platform's placeholders were made neutral. What the text alone does not tell is a
sentence in ``unsure``: a table named at run time, a function, a statement the parser cannot read. Never raises.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from discovery.facts import DatabaseFacts
from discovery.placeholders import is_open, neutral

ALL = "*"
LARGEST = 200_000
"""Longer texts are not parsed."""
_HINT = re.compile(r"\b(from|join|into|update)\s+((?:\"[^\"]+\"|\w+)(?:\.(?:\"[^\"]+\"|\w+))?)", re.IGNORECASE)
_OURS = frozenset({"set_config", "current_setting"})
_NO_TABLE = frozenset({"unnest", "generate_series", "excluded", "new", "old"})


@dataclass(kw_only=True, slots=True)
class SqlUse:
    """What was found. Tables are ``schema.table``; ``ALL`` among columns means any of them."""

    reads: dict[str, set[str]] = field(default_factory=dict)
    """Columns whose values matter. One that only finds the rows to be written, or only counts up, is not among them."""
    finds: dict[str, set[str]] = field(default_factory=dict)
    """Columns that only find the rows to be written."""
    inserts: dict[str, set[str]] = field(default_factory=dict)
    """Columns that are given to inserted rows."""
    updates: dict[str, set[str]] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)
    counters: dict[str, set[str]] = field(default_factory=dict)
    """Columns that are set to their own value plus or minus something."""
    not_counters: dict[str, set[str]] = field(default_factory=dict)
    """Columns that an update sets to anything else."""
    functions: set[str] = field(default_factory=set)
    """Functions of the app that it calls, ``schema.name``, their tables included in the rest where they are known."""
    unsure: list[str] = field(default_factory=list)

    def add(self, other: SqlUse) -> None:
        """Take over all of ``other``."""
        for mine, theirs in (
            (self.reads, other.reads),
            (self.finds, other.finds),
            (self.inserts, other.inserts),
            (self.updates, other.updates),
            (self.counters, other.counters),
            (self.not_counters, other.not_counters),
        ):
            for table, columns in theirs.items():
                mine.setdefault(table, set()).update(columns)
        self.deletes |= other.deletes
        self.functions |= other.functions
        self.unsure += [u for u in other.unsure if u not in self.unsure]

    @property
    def writes(self) -> set[str]:
        return {*self.inserts, *self.updates, *self.deletes}


def read(text: str, facts: DatabaseFacts) -> SqlUse:
    """The use of all statements in ``text``, their names resolved in the database that ``facts`` describe."""
    use = SqlUse()
    if len(text) > LARGEST:
        use.unsure.append(f"a statement of {len(text)} characters is too long to be read")
        return use
    bare = neutral(text)
    for statement in _parsed(bare, use, facts):
        try:
            _Reader(use, facts).statement(statement, _Scope())
        except (RecursionError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            use.unsure.append(f"a statement was read in part only ({type(error).__name__})")
    return use


def _parsed(text: str, use: SqlUse, facts: DatabaseFacts) -> Sequence[Any]:
    import sqlglot

    log = logging.getLogger("sqlglot")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it falls back on is told below, in our words
    try:
        return [s for s in sqlglot.parse(text, read="postgres") if s is not None]
    except Exception as error:  # noqa: BLE001 - a parser met with any text; whatever it raises means the same
        hint = _hinted(text, facts)
        names = f"; it names {', '.join(hint)}" if hint else ""
        use.unsure.append(f"a statement cannot be parsed ({type(error).__name__}){names}")
        return []
    finally:
        log.setLevel(level)


def _hinted(text: str, facts: DatabaseFacts) -> list[str]:
    """Tables of the database that a text seems to name where no parser can tell."""
    found = []
    for _, name in _HINT.findall(text):
        schema, _, table = name.replace('"', "").rpartition(".")
        if (known := facts.find(schema or None, table)) and known not in found:
            found.append(known)
    return found


@dataclass(kw_only=True, slots=True)
class _Scope:
    """What names mean in one query: aliases to tables (``None``: nothing of the database), and what is outside."""

    aliases: dict[str, str | None] = field(default_factory=dict)
    ctes: frozenset[str] = frozenset()
    outer: _Scope | None = None

    def table(self, alias: str) -> tuple[bool, str | None]:
        scope: _Scope | None = self
        while scope is not None:
            if alias in scope.aliases:
                return True, scope.aliases[alias]
            scope = scope.outer
        return False, None


class _Reader:
    def __init__(self, use: SqlUse, facts: DatabaseFacts) -> None:
        from sqlglot import exp

        self.exp = exp
        self.use, self.facts = use, facts
        self.queries = (exp.Select, exp.SetOperation, exp.Insert, exp.Update, exp.Delete, exp.Merge)

    def statement(self, node: Any, outer: _Scope) -> None:
        """One statement or query, with what it contains."""
        exp = self.exp
        scope = _Scope(ctes=outer.ctes, outer=outer)
        for cte in node.args["with_"].expressions if node.args.get("with_") else ():
            name = cte.alias.lower()
            inner = scope.ctes | {name} if node.args["with_"].args.get("recursive") else scope.ctes
            self.statement(cte.this, _Scope(ctes=inner, outer=outer))
            scope.ctes = scope.ctes | {name}
        match node:
            case exp.Select():
                self.select(node, scope)
            case exp.SetOperation():
                for side in (node.this, node.expression):
                    self.statement(side.unnest(), scope)
                self.rest(node, scope, ("this", "expression", "with_"))
            case exp.Insert():
                self.insert(node, scope)
            case exp.Update():
                self.update(node, scope)
            case exp.Delete():
                self.delete(node, scope)
            case exp.Merge():
                self.merge(node, scope)
            case exp.TruncateTable():
                self.use.deletes.update(t for t in map(self.resolve, node.expressions) if t)
            case exp.Copy():
                self.copy(node)
            case exp.Subquery() | exp.Paren():
                self.statement(node.this, scope)
                self.rest(node, scope, ("this", "with_"))
            case exp.Values():
                self.rest(node, scope, ("with_",))
            case exp.Transaction() | exp.Commit() | exp.Rollback() | exp.Set():
                pass
            case _:
                self.other(node, scope)

    def other(self, node: Any, scope: _Scope) -> None:
        """Statements of no interest, or of no certain effect."""
        word = str(node.args.get("this") or "") if isinstance(node, self.exp.Command) else ""
        if word.upper() in ("SET", "SHOW", "LISTEN", "UNLISTEN", "LOCK", "ANALYZE", "VACUUM", "BEGIN", "RESET"):
            return
        what = word.upper() or type(node).__name__.upper()
        if what in ("CALL", "DO", "EXECUTE", "PREPARE", "NOTIFY"):
            self.use.unsure.append(f"{what} does what this text does not tell")
        elif isinstance(node, (self.exp.Create, self.exp.Drop, self.exp.Alter)):
            self.use.unsure.append(f"{what} changes the shape of the database")
        else:
            self.use.unsure.append(f"a statement beginning with {what[:20]} is not understood")
        for query in node.find_all(*self.queries):
            self.statement(query, scope)
            break

    # Queries

    def select(self, node: Any, scope: _Scope) -> None:
        for part in (node.args.get("from_"), *(node.args.get("joins") or ()), *(node.args.get("laterals") or ())):
            self.source(part, scope)
        if node.args.get("into"):
            self.use.unsure.append("SELECT INTO makes a table")
        self.rest(node, scope, ("from_", "joins", "laterals", "with_", "locks", "into"))
        if any(isinstance(e, self.exp.Star) for e in node.expressions):
            self.whole(scope)
        for part in (*(node.args.get("joins") or ()), *(node.args.get("laterals") or ()), node.args.get("from_")):
            self.conditions(part, scope)

    def source(self, part: Any, scope: _Scope) -> None:
        """Give the tables of a FROM or JOIN their aliases; nested queries are read where conditions are."""
        exp = self.exp
        if part is None:
            return
        if isinstance(part, exp.Table):
            self.alias(part, scope)
            for join in part.args.get("joins") or ():
                self.source(join, scope)
            return
        if isinstance(part, (exp.Subquery, exp.Lateral, exp.Unnest, exp.Values)):
            if part.alias:
                scope.aliases[part.alias.lower()] = None
            for join in part.args.get("joins") or ():
                self.source(join, scope)
            if isinstance(part, exp.Subquery) and isinstance(part.this, exp.Table):
                self.source(part.this, scope)
            return
        if isinstance(part, (exp.From, exp.Join, exp.Paren)):
            self.source(part.this, scope)
            return
        for child in part.iter_expressions():
            self.source(child, scope)

    def alias(self, table: Any, scope: _Scope) -> None:
        """A table in FROM: known under its alias, read at least for its existence."""
        name = self.resolve(table, scope)
        alias = (table.alias or table.name).lower()
        if alias:
            scope.aliases[alias] = name
        if name is not None:
            self.use.reads.setdefault(name, set())

    def conditions(self, part: Any, scope: _Scope) -> None:
        """What stands beside the names in a FROM or JOIN: conditions, nested queries, functions."""
        exp = self.exp
        if part is None:
            return
        if isinstance(part, exp.Table):
            if not isinstance(part.this, exp.Identifier):
                self.values(part.this, scope)
            for join in part.args.get("joins") or ():
                self.conditions(join, scope)
            return
        if isinstance(part, exp.Subquery) and isinstance(part.this, exp.Table):
            self.conditions(part.this, scope)
        elif isinstance(part, exp.Subquery):
            self.statement(part.this, scope)
            for join in part.args.get("joins") or ():
                self.conditions(join, scope)
        elif isinstance(part, (exp.From, exp.Join)):
            self.conditions(part.this, scope)
            if part.args.get("on") is not None:
                self.values(part.args["on"], scope)
            for column in part.args.get("using") or ():
                self.unqualified(column.name, scope, every=True)
        else:
            self.values(part, scope)

    def rest(self, node: Any, scope: _Scope, but: Sequence[str]) -> None:
        """Every part of ``node`` that is not named in ``but``, as values."""
        for name, value in node.args.items():
            if name not in but:
                for child in value if isinstance(value, list) else (value,):
                    if isinstance(child, self.exp.Expr):
                        self.values(child, scope)

    # Writes

    def insert(self, node: Any, scope: _Scope) -> None:
        exp = self.exp
        target = node.this.this if isinstance(node.this, exp.Schema) else node.this
        name = self.resolve(target, scope, written=True)
        given = {c.name for c in node.this.expressions} if isinstance(node.this, exp.Schema) else {ALL}
        source = node.expression
        if name is not None:
            self.use.inserts.setdefault(name, set()).update(given)
        if isinstance(source, exp.Values):
            self.rest(source, scope, ())
        elif source is not None:
            self.statement(source, _Scope(ctes=scope.ctes, outer=scope.outer))
        inner = _Scope(ctes=scope.ctes, outer=scope, aliases={"excluded": None})
        if isinstance(target, exp.Table):
            inner.aliases[(target.alias or target.name).lower()] = name
        conflict = node.args.get("conflict")
        if conflict is not None and conflict.expressions:
            self.assignments(conflict.expressions, name, inner)
            if conflict.args.get("where") is not None:
                self.values(conflict.args["where"], inner)
        # RETURNING gives back what was just written; only a query inside it would read something else.
        for query in self.within(node.args.get("returning")):
            self.statement(query, inner)

    def update(self, node: Any, scope: _Scope) -> None:
        name = self.target(node.this, scope)
        source = node.args.get("from_")
        self.source(source, scope)
        self.assignments(node.expressions, name, scope)
        self.conditions(source, scope)
        self.locating(node.args.get("where"), node.this, name, scope)
        if node.args.get("returning") is not None:
            self.values(node.args["returning"], scope)

    def delete(self, node: Any, scope: _Scope) -> None:
        name = self.target(node.this, scope)
        if name is not None:
            self.use.deletes.add(name)
        for part in node.args.get("using") or ():
            self.source(part, scope)
        for part in node.args.get("using") or ():
            self.conditions(part, scope)
        self.locating(node.args.get("where"), node.this, name, scope)
        if node.args.get("returning") is not None:
            self.values(node.args["returning"], scope)

    def merge(self, node: Any, scope: _Scope) -> None:
        exp = self.exp
        name = self.target(node.this, scope)
        self.source(node.args.get("using"), scope)
        self.conditions(node.args.get("using"), scope)
        self.locating(node.args.get("on"), node.this, name, scope)
        for when in node.args["whens"].expressions if node.args.get("whens") else ():
            if when.args.get("condition") is not None:
                self.values(when.args["condition"], scope)
            then = when.args.get("then")
            if isinstance(then, exp.Update):
                self.assignments(then.expressions, name, scope)
            elif isinstance(then, exp.Insert):
                if name is not None:
                    columns = then.this.expressions if isinstance(then.this, exp.Tuple) else ()
                    self.use.inserts.setdefault(name, set()).update({c.name for c in columns} or {ALL})
                if then.expression is not None:
                    self.values(then.expression, scope)
            elif name is not None and str(getattr(then, "name", then)).lower() == "delete":
                self.use.deletes.add(name)

    def copy(self, node: Any) -> None:
        target = node.this.this if isinstance(node.this, self.exp.Schema) else node.this
        columns = {c.name for c in node.this.expressions} if isinstance(node.this, self.exp.Schema) else {ALL}
        if not isinstance(target, self.exp.Table):
            self.statement(target, _Scope())
        elif (name := self.resolve(target)) is not None:
            (self.use.inserts if node.args.get("kind") else self.use.reads).setdefault(name, set()).update(columns)

    def target(self, table: Any, scope: _Scope) -> str | None:
        name = self.resolve(table, scope, written=True)
        scope.aliases[(table.alias or table.name).lower()] = name
        return name

    def assignments(self, expressions: Sequence[Any], name: str | None, scope: _Scope) -> None:
        """``SET`` of an update: written columns, counters, and the values on the right."""
        exp = self.exp
        for item in expressions:
            if not isinstance(item, exp.EQ):
                self.values(item, scope)
                continue
            left, right = item.this, item.expression
            columns = {c.name for c in left.find_all(exp.Column)} or {left.name}
            if name is not None:
                self.use.updates.setdefault(name, set()).update(columns)
            rest = self.counted(left, right, name, scope)
            if name is not None:
                kind = self.use.counters if rest is not right else self.use.not_counters
                kind.setdefault(name, set()).update(columns)
            self.values(rest, scope)

    def counted(self, left: Any, right: Any, name: str | None, scope: _Scope) -> Any:
        """The other side of ``c = c + x``; ``right`` itself where it is nothing of that form."""
        exp = self.exp
        body = right.unnest() if isinstance(right, exp.Paren) else right
        if not isinstance(left, exp.Column) or not isinstance(body, (exp.Add, exp.Sub)) or name is None:
            return right
        for own, other in ((body.this, body.expression), (body.expression, body.this)):
            inner = own.unnest()
            if isinstance(inner, exp.Coalesce):
                inner = inner.this
            if isinstance(inner, exp.Column) and inner.name == left.name:
                known, table = scope.table(inner.table.lower()) if inner.table else (True, name)
                if known and table == name and (own is body.this or isinstance(body, exp.Add)):
                    return other
        return right

    def locating(self, where: Any, target: Any, name: str | None, scope: _Scope) -> None:
        """A condition that picks the rows to be written: a column of the target that must equal something given finds
        a row; anything else is a value that decides."""
        exp = self.exp
        if where is None:
            return
        body = where.this if isinstance(where, exp.Where) else where
        mine = (target.alias or target.name).lower()
        for part in body.flatten() if isinstance(body, exp.And) else (body,):
            pair = (part.this, part.expression) if isinstance(part, exp.EQ) else ()
            for own, other in (pair, pair[::-1]) if pair else ():
                if self.finds(own, mine, name, scope) and not isinstance(other.unnest(), exp.Literal):
                    self.use.finds.setdefault(str(name), set()).add(own.name)
                    self.values(other, scope)
                    break
            else:
                self.values(part, scope)

    def finds(self, column: Any, alias: str, name: str | None, scope: _Scope) -> bool:
        if not isinstance(column, self.exp.Column) or name is None or is_open(column.name):
            return False
        if column.table:
            return bool(column.table.lower() == alias)
        fact = self.facts.tables.get(name)
        return len([t for t in scope.aliases.values() if t]) == 1 if fact is None else column.name in fact.names

    # Values

    def values(self, node: Any, scope: _Scope) -> None:
        """Columns, nested queries and functions in an expression."""
        exp = self.exp
        match node:
            case exp.Column():
                self.column(node, scope)
            case exp.Select() | exp.SetOperation() | exp.Insert() | exp.Update() | exp.Delete() | exp.Merge():
                self.statement(node, scope)
            case exp.Table():
                self.alias(node, scope)
            case exp.Dot() if isinstance(node.expression, exp.Anonymous):
                self.function(node.this.name, node.expression, scope)
            case exp.Anonymous():
                self.function(None, node, scope)
            case _:
                for child in node.iter_expressions():
                    self.values(child, scope)

    def within(self, node: Any) -> Iterator[Any]:
        if node is not None:
            for query in node.find_all(exp_type := self.exp.Select):
                if query.find_ancestor(exp_type) is None:
                    yield query

    def function(self, schema: str | None, node: Any, scope: _Scope) -> None:
        name = str(node.this).lower() if isinstance(node.this, str) else node.name.lower()
        known = [
            f for f in self.facts.functions if f == f"{schema}.{name}" or (schema is None and f.endswith(f".{name}"))
        ]
        if known and not self.facts.functions[known[0]].pure:
            self.use.functions.add(known[0])
        elif not known and schema not in (None, "pg_catalog"):
            self.use.unsure.append(f"function {schema}.{name} is not in the database")
        for argument in node.expressions:
            self.values(argument, scope)

    def column(self, node: Any, scope: _Scope) -> None:
        name = node.name
        if node.table:
            known, table = scope.table(node.table.lower())
            if known and table is not None:
                self.reading(table, ALL if isinstance(node.this, self.exp.Star) else name)
            return
        if isinstance(node.this, self.exp.Star):
            self.whole(scope)
        elif not is_open(name):
            self.unqualified(name, scope)

    def unqualified(self, name: str, scope: _Scope, *, every: bool = False) -> None:
        """A bare column: of the table that has it; of the nearest query's only source where nothing is known."""
        at: _Scope | None = scope
        while at is not None:
            tables = [t for t in at.aliases.values() if t is not None]
            owners = [t for t in tables if (fact := self.facts.tables.get(t)) is not None and name in fact.names]
            unknown = [t for t in tables if t not in self.facts.tables]
            if not owners and len(unknown) == 1 and len(at.aliases) == 1:
                owners = unknown
            if owners:
                for table in owners if every else owners[:1]:
                    self.reading(table, name)
                return
            if name.lower() in at.aliases:  # a whole row, as in `row_to_json(t)`
                if (table_of_row := at.aliases[name.lower()]) is not None:
                    self.reading(table_of_row, ALL)
                return
            at = at.outer

    def whole(self, scope: _Scope) -> None:
        for table in scope.aliases.values():
            if table is not None:
                self.reading(table, ALL)

    def reading(self, table: str, column: str) -> None:
        fact = self.facts.tables.get(table)
        if column == ALL or fact is None or column in fact.names:
            self.use.reads.setdefault(table, set()).add(column)
        elif column == table.partition(".")[2]:
            self.use.reads.setdefault(table, set()).add(ALL)

    # Names

    def resolve(self, table: Any, scope: _Scope | None = None, *, written: bool = False) -> str | None:
        """The full name of a table; ``None`` for what is none: a common table expression, a function, a placeholder."""
        exp = self.exp
        if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
            return None
        schema, name = table.db or None, table.name
        if is_open(name) or (schema and is_open(schema)):
            self.use.unsure.append(f"a table that it {'writes' if written else 'reads'} is only named at run time")
            return None
        if schema is None and scope is not None and name.lower() in scope.ctes:
            return None
        if schema in ("pg_catalog", "information_schema") or (schema is None and name.lower() in _NO_TABLE):
            return None
        quoted = table.this.args.get("quoted")
        found = self.facts.find(schema, name) or (None if quoted else self.facts.find(schema, name.lower()))
        if found is None:
            full = f"{schema or 'public'}.{name}"
            self.use.unsure.append(f"table {full} is not in the database {self.facts.name}")
            return None
        if found in self.facts.views:
            if written:
                self.use.unsure.append(f"it writes through the view {found}")
            for behind in self.facts.views[found]:
                self.use.reads.setdefault(behind, set()).add(ALL)
            return None
        return found
