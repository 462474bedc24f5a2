"""Discovery knows no vendor: definitions of Node-RED and Directus, and single nodes, by their outlines alone."""

from __future__ import annotations

from typing import Any

from discovery.facts import WorkflowFacts
from discovery.roles import grants, guess, shared_credentials
from discovery.tagging import edits
from discovery.uses import WorkflowUse, uses
from platforms import directus_outline, node_red_outline
from platforms.base import Access, Credential, CredentialState, Node, Outline, TableUse
from tests.discovery.shapes import SHOP
from tests.platforms.directus_flows import definition, operation

AT = {"x": 1, "y": 1}


def of(outline: Outline, **facts: Any) -> WorkflowUse:
    return uses(WorkflowFacts(id=outline.name, name=outline.name, active=True, outline=outline, **facts), SHOP)


def nodes(*made: Node, name: str = "One", **facts: Any) -> WorkflowUse:
    return of(Outline(name=name, entries=(), nodes=made, links=()), **facts)


def test_a_tab_of_node_red() -> None:
    query = "UPDATE stock SET level = level - {{msg.payload.n}} WHERE sku = '{{{msg.payload.sku}}}'"
    tab = {
        "name": "Shop",
        "nodes": [
            {"id": "h", "type": "http in", "url": "/sell", "method": "post", "wires": [["w"]], **AT},
            {"id": "w", "type": "postgrestor", "name": "Book", "postgresDB": "db", "query": query, "wires": [[]], **AT},
            {"id": "o", "type": "postgrestor", "postgresDB": "db", "query": "DELETE FROM orders", "wires": [[]],
             "d": True, **AT},
        ],
        "configs": [{"id": "db", "type": "postgresDB", "host": "db.test"}],
    }  # fmt: skip
    use = of(node_red_outline.outline(tab))
    assert use.writes == ("public.stock.level",)
    assert use.sql.counters == {"public.stock": {"level"}}
    [edit] = edits(use, "node-red")
    assert (edit.node, edit.after) == ("Book", None)


def test_a_flow_of_directus() -> None:
    flow = definition(
        operation("make", "item-create", then="call", collection="orders", payload={"total": 1}),
        operation("call", "request", then="look", url="https://pay.example/x", method="POST"),
        operation("look", "item-read", collection="{{ $last.name }}"),
    )
    use = of(directus_outline.outline(flow))
    assert use.writes == ("public.orders",)
    assert use.hosts == ("pay.example",)
    assert any("'look'" in why for why in use.unsure)


def test_a_node_that_only_gives_some_columns_changes_rows_and_one_that_gives_enough_makes_them() -> None:
    some = Node(name="n", kind="k", tables=(TableUse(table="stock", access=Access.WRITE, columns=("level",)),))
    use = nodes(some)
    assert use.writes == ("public.stock",), "the test's columns may all be empty, so any of them is enough"
    maybe = nodes(Node(name="n", kind="k", tables=(TableUse(table="stock", access=Access.UNKNOWN),)))
    assert maybe.writes == ()
    assert "it may write public.stock" in maybe.unsure[0]


def test_functions_are_looked_into_and_disabled_nodes_are_not() -> None:
    calling = Node(name="n", kind="k", sql=("SELECT book($1)",))
    use = nodes(calling)
    assert use.writes == ("public.stock.level",)
    assert "public.book, which is read in part only" in use.unsure[0]
    assert nodes(Node(name="n", kind="k", disabled=True, sql=calling.sql)).tables == set()


def test_a_role_is_known_by_its_credential_and_never_shared() -> None:
    write = Node(name="n", kind="k", sql=("UPDATE stock SET level = $1 WHERE sku = $2",))

    def with_credential(name: str, credential: str) -> WorkflowUse:
        held = Credential(id=credential, name=credential, kind="postgres", state=CredentialState.PRESENT)
        return nodes(write, name=name, credentials=(held,))

    one, two, three = (with_credential(n, c) for n, c in (("One", "app"), ("Two", "app"), ("Three", "role wf_x")))
    assert shared_credentials([one, two, three]) == {"app": ("One", "Two")}
    keys = {"One": "one", "Two": "two", "Three": "three"}
    found = guess([one, two, three], keys, SHOP)
    assert [g.role for g in found.values()] == ["wf_one", "wf_two", "wf_three"]
    assert not any(g.exists for g in found.values())
    assert list(grants(one, "wf_one", SHOP)) == [
        "GRANT USAGE ON SCHEMA public TO wf_one;",
        "GRANT SELECT, UPDATE (level) ON public.stock TO wf_one;",
    ]
