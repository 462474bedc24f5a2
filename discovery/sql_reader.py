"""A parsed statement walked through: its queries, its writes, and what each name in it stands for.

Columns are looked up in the tables that the nearest query names, common table expressions and functions apart. It
imports the parser; :mod:`discovery.tables_in_sql` is the way in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlglot import exp

from discovery.placeholders import is_open
from discovery.sql_names import Names, Scope, folded
from discovery.sql_use import ALL

_QUERIES = (exp.Select, exp.SetOperation, exp.Insert, exp.Update, exp.Delete, exp.Merge)
_QUIET = frozenset({"SET", "SHOW", "LISTEN", "UNLISTEN", "LOCK", "ANALYZE", "VACUUM", "BEGIN", "RESET"})
"""Commands that neither read nor write rows."""


class Reader(Names):
    """Walks through one statement after the other; what it finds is in ``use``."""

    def statement(self, node: Any, outer: Scope) -> None:
        """One statement or query, with what it contains."""
        scope = Scope(ctes=outer.ctes, outer=outer)
        for cte in node.args["with_"].expressions if node.args.get("with_") else ():
            name = cte.alias.lower()
            inner = scope.ctes | {name} if node.args["with_"].args.get("recursive") else scope.ctes
            self.statement(cte.this, Scope(ctes=inner, outer=outer))
            scope.ctes = scope.ctes | {name}
        for kind, handle in self._handlers():
            if isinstance(node, kind):
                handle(node, scope)
                return
        self.other(node, scope)

    def _handlers(self) -> tuple[tuple[Any, Callable[[Any, Scope], None]], ...]:
        return (
            (exp.Select, self.select),
            (exp.SetOperation, self.united),
            (exp.Insert, self.insert),
            (exp.Update, self.update),
            (exp.Delete, self.delete),
            (exp.Merge, self.merge),
            (exp.TruncateTable, self.truncate),
            (exp.Copy, self.copy),
            ((exp.Subquery, exp.Paren), self.bracketed),
            (exp.Values, lambda node, scope: self.rest(node, scope, ("with_",))),
            ((exp.Transaction, exp.Commit, exp.Rollback, exp.Set), lambda node, scope: None),  # noqa: ARG005
        )

    def other(self, node: Any, scope: Scope) -> None:
        """Statements of no interest, or of no certain effect."""
        word = str(node.args.get("this") or "").upper() if isinstance(node, exp.Command) else ""
        if word in _QUIET:
            return
        what = word or type(node).__name__.upper()
        if what in ("CALL", "DO", "EXECUTE", "PREPARE", "NOTIFY"):
            self.use.unsure.append(f"{what} does what this text does not tell")
        elif isinstance(node, (exp.Create, exp.Drop, exp.Alter)):
            self.use.unsure.append(f"{what} changes the shape of the database")
        else:
            self.use.unsure.append(f"a statement beginning with {what[:20]} is not understood")
        query = next(node.find_all(*_QUERIES), None)
        if query is not None:
            self.statement(query, scope)

    # Queries

    def united(self, node: Any, scope: Scope) -> None:
        for side in (node.this, node.expression):
            self.statement(side.unnest(), scope)
        self.rest(node, scope, ("this", "expression", "with_"))

    def bracketed(self, node: Any, scope: Scope) -> None:
        self.statement(node.this, scope)
        self.rest(node, scope, ("this", "with_"))

    def select(self, node: Any, scope: Scope) -> None:
        for part in (node.args.get("from_"), *(node.args.get("joins") or ()), *(node.args.get("laterals") or ())):
            self.source(part, scope)
        if node.args.get("into"):
            self.use.unsure.append("SELECT INTO makes a table")
        self.rest(node, scope, ("from_", "joins", "laterals", "with_", "locks", "into"))
        if any(isinstance(e, exp.Star) for e in node.expressions):
            self.whole(scope)
        for part in (*(node.args.get("joins") or ()), *(node.args.get("laterals") or ()), node.args.get("from_")):
            self.conditions(part, scope)

    def source(self, part: Any, scope: Scope) -> None:
        """Give the tables of a FROM or JOIN their aliases; nested queries are read where conditions are."""
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

    def conditions(self, part: Any, scope: Scope) -> None:
        """What stands beside the names in a FROM or JOIN: conditions, nested queries, functions."""
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
                self.unqualified(folded(column), scope, every=True)
        else:
            self.values(part, scope)

    def rest(self, node: Any, scope: Scope, but: Sequence[str]) -> None:
        """Every part of ``node`` that is not named in ``but``, as values."""
        for name, value in node.args.items():
            if name not in but:
                for child in value if isinstance(value, list) else (value,):
                    if isinstance(child, exp.Expr):
                        self.values(child, scope)

    # Writes

    def insert(self, node: Any, scope: Scope) -> None:
        target = node.this.this if isinstance(node.this, exp.Schema) else node.this
        name = self.resolve(target, scope, written=True)
        given = {folded(c) for c in node.this.expressions} if isinstance(node.this, exp.Schema) else {ALL}
        source = node.expression
        if name is not None:
            self.use.inserts.setdefault(name, set()).update(given)
        if isinstance(source, exp.Values):
            self.rest(source, scope, ())
        elif source is not None:
            self.statement(source, Scope(ctes=scope.ctes, outer=scope.outer))
        inner = Scope(ctes=scope.ctes, outer=scope, aliases={"excluded": None})
        if isinstance(target, exp.Table):
            inner.aliases[(target.alias or target.name).lower()] = name
        conflict = node.args.get("conflict")
        if conflict is not None and conflict.expressions:
            self.assignments(conflict.expressions, name, inner)
            if conflict.args.get("where") is not None:
                self.values(conflict.args["where"], inner)
        # RETURNING gives back what was just written; only a query inside it would read something else.
        for query in _nested(node.args.get("returning")):
            self.statement(query, inner)

    def update(self, node: Any, scope: Scope) -> None:
        name = self.target(node.this, scope)
        source = node.args.get("from_")
        self.source(source, scope)
        self.assignments(node.expressions, name, scope)
        self.conditions(source, scope)
        self.locating(node.args.get("where"), node.this, name, scope)
        if node.args.get("returning") is not None:
            self.values(node.args["returning"], scope)

    def delete(self, node: Any, scope: Scope) -> None:
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

    def merge(self, node: Any, scope: Scope) -> None:
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
                    self.use.inserts.setdefault(name, set()).update({folded(c) for c in columns} or {ALL})
                if then.expression is not None:
                    self.values(then.expression, scope)
            elif name is not None and str(getattr(then, "name", then)).lower() == "delete":
                self.use.deletes.add(name)

    def truncate(self, node: Any, scope: Scope) -> None:
        self.use.deletes.update(name for t in node.expressions if (name := self.resolve(t, scope, written=True)))

    def copy(self, node: Any, scope: Scope) -> None:
        target = node.this.this if isinstance(node.this, exp.Schema) else node.this
        columns = {folded(c) for c in node.this.expressions} if isinstance(node.this, exp.Schema) else {ALL}
        if not isinstance(target, exp.Table):
            self.statement(target, scope)
        elif (name := self.resolve(target, scope, written=bool(node.args.get("kind")))) is not None:
            (self.use.inserts if node.args.get("kind") else self.use.reads).setdefault(name, set()).update(columns)

    def target(self, table: Any, scope: Scope) -> str | None:
        name = self.resolve(table, scope, written=True)
        scope.aliases[(table.alias or table.name).lower()] = name
        return name

    def assignments(self, expressions: Sequence[Any], name: str | None, scope: Scope) -> None:
        """``SET`` of an update: written columns, counters, and the values on the right."""
        for item in expressions:
            if not isinstance(item, exp.EQ):
                self.values(item, scope)
                continue
            left, right = item.this, item.expression
            columns = {folded(c) for c in left.find_all(exp.Column)} or {left.name}
            if name is not None:
                self.use.updates.setdefault(name, set()).update(columns)
            rest = self.counted(left, right, name, scope)
            if name is not None:
                kind = self.use.counters if rest is not right else self.use.not_counters
                kind.setdefault(name, set()).update(columns)
            self.values(rest, scope)

    def counted(self, left: Any, right: Any, name: str | None, scope: Scope) -> Any:
        """The other side of ``c = c + x``; ``right`` itself where it is nothing of that form."""
        body = right.unnest() if isinstance(right, exp.Paren) else right
        if not isinstance(left, exp.Column) or not isinstance(body, (exp.Add, exp.Sub)) or name is None:
            return right
        for own, other in ((body.this, body.expression), (body.expression, body.this)):
            inner = own.unnest()
            if isinstance(inner, exp.Coalesce):
                inner = inner.this
            if isinstance(inner, exp.Column) and folded(inner) == folded(left):
                known, table = scope.table(inner.table.lower()) if inner.table else (True, name)
                if known and table == name and (own is body.this or isinstance(body, exp.Add)):
                    return other
        return right

    def locating(self, where: Any, target: Any, name: str | None, scope: Scope) -> None:
        """A condition that picks the rows to be written: a column of the target that must equal something given finds
        a row; anything else is a value that decides."""
        if where is None:
            return
        body = where.this if isinstance(where, exp.Where) else where
        mine = (target.alias or target.name).lower()
        for part in body.flatten() if isinstance(body, exp.And) else (body,):
            pair = (part.this, part.expression) if isinstance(part, exp.EQ) else ()
            for own, other in (pair, pair[::-1]) if pair else ():
                if self.finds(own, mine, name) and not isinstance(other.unnest(), exp.Literal):
                    self.use.finds.setdefault(str(name), set()).add(folded(own))
                    self.values(other, scope)
                    break
            else:
                self.values(part, scope)

    def finds(self, column: Any, alias: str, name: str | None) -> bool:
        if not isinstance(column, exp.Column) or name is None or is_open(column.name):
            return False
        if column.table:
            return bool(column.table.lower() == alias)
        return folded(column) in self.facts.tables[name].names


def _nested(node: Any) -> Iterator[Any]:
    """Queries inside an expression that belongs to a statement, not those inside these."""
    for query in node.find_all(exp.Select) if node is not None else ():
        above = query.parent
        while above is not node and not isinstance(above, exp.Select):
            above = above.parent
        if above is node:
            yield query
