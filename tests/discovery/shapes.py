"""Facts of a small database, and a desk on a real one, for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence

from discovery.facts import ColumnFact, DatabaseFacts, ForeignKey, FunctionFact, TableFact


def table(name: str, columns: str, *, key: Sequence[str] = ("id",), references: Sequence[ForeignKey] = ()) -> TableFact:
    """A table with text columns; ``n:`` before a name makes a number, ``!`` one that must be given."""
    found = []
    for word in columns.split():
        plain = word.removeprefix("!").removeprefix("n:")
        number = "n:" in word
        found.append(
            ColumnFact(
                name=plain, type="integer" if number else "text", category="N" if number else "S",
                not_null=word.startswith("!"),
            )
        )  # fmt: skip
    return TableFact(
        name=name, owner="owner", rows=100, columns=tuple(found), key=tuple(key), foreign_keys=tuple(references)
    )


SHOP = DatabaseFacts(
    name="shop",
    tables={
        t.name: t
        for t in (
            table("public.orders", "id customer n:total status placed_at"),
            table(
                "public.items", "id order_id sku n:qty n:price",
                references=[ForeignKey(columns=("order_id",), table="public.orders", to=("id",))],
            ),
            table("public.stock", "sku n:level n:reserved", key=["sku"]),
            table("crm.people", "id name email"),
            table("public.Odd", "Id userName"),
        )
    },
    views={"public.open_orders": ("public.orders",)},
    functions={
        "public.book": FunctionFact(
            name="public.book", language="plpgsql", pure=False,
            body="BEGIN UPDATE public.stock SET level = level - 1 WHERE sku = $1; END",
        ),
        "public.vat": FunctionFact(name="public.vat", language="sql", pure=True, body="SELECT $1 * 0.2"),
    },
)  # fmt: skip
