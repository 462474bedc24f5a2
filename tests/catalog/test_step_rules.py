"""A declared inverse that could not work is refused with its line, before anybody needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import placeholders
from catalog.errors import Invalid
from catalog.load import load

STEP = "          - {name: charge, inverse: compensable, manual: refund it}\n"
HTTP = """\
          - name: charge
            inverse: compensable
            node: Charge
            compensation:
              kind: http
              url: https://pay.example/{charge}
              values: {charge: outputs.Charge.0.id}
"""
SQL = """\
          - name: charge
            inverse: compensable
            node: Charge
            compensation:
              kind: sql
              sql: UPDATE shop.orders SET paid = 0 WHERE id = :id
              values: {id: event.body.id}
"""


def refusal(write: Callable[..., Path], step: str) -> str:
    root = write(STEP, step)
    with pytest.raises(Invalid) as caught:
        load(root)
    [problem] = caught.value.problems
    text = (root / "catalog.yaml").read_text().splitlines()
    return f"{text[problem.line - 1].strip()} | {problem.path} | {problem.cause}. {problem.remedy}"


@pytest.mark.parametrize(
    "step", [HTTP, SQL, HTTP.replace("0.id", "*.id"), HTTP.replace("charge: outputs.Charge.0.id", "charge: run")]
)
def test_a_good_one_is_taken(write: Callable[..., Path], step: str) -> None:
    [found] = load(write(STEP, step)).app("shop").workflow("payment").steps
    assert found.compensation is not None


UPDATE = "sql: UPDATE shop.orders SET paid = 0 WHERE id = :id"
MORE = "kind: http\n              "


@pytest.mark.parametrize(
    ("good", "swap", "line", "says"),
    [
        (HTTP, ("compensable", "irreversible"), "compensation:", "is irreversible, so this would never be done"),
        (HTTP, ("kind: http", "kind: sql"), "compensation:", "a compensation of kind sql needs `sql:`"),
        (HTTP, ("kind: http", MORE + "sql: SELECT 1"), "sql: SELECT 1", "takes no `sql:`"),
        (HTTP, ("https://pay.example", "pay.example"), "url: pay", "this is no address"),
        (HTTP, ("https://pay.example/", "https://{charge}.example/"), "url: https", "may not come from a value"),
        (HTTP, ("https://pay.example/", "https://me:pw@pay.example/"), "url: https", "a secret must be a reference"),
        (HTTP, ("/{charge}\n", "/\n"), "values: {charge", "{charge} is used nowhere"),
        (HTTP, ("/{charge}\n", "/{charge}/{amount}\n"), "url: https", "{amount} is not among the `values:`"),
        (HTTP, ("outputs.Charge.0.id", "output.Charge.0.id"), "values: {charge", "leads nowhere"),
        (HTTP, ("outputs.Charge.0.id", "outputs.Other.*.id"), "values: {charge", "not of the step's own node"),
        (HTTP, ("kind: http", MORE + "headers: {Idempotency-Key: env:KEY}"), "headers:", "sends this header itself"),
        (HTTP, ("kind: http", MORE + "headers: {Authorization: Bearer a}"), "headers:", "must be a reference"),
        (HTTP, ("kind: http", MORE + "not_needed: [200]"), "not_needed:", "200 does not say"),
        (HTTP, ("kind: http", MORE + "retries: 99"), "retries:", "less than or equal to 20"),
        (HTTP, ("node: Charge", "node: Charge\n            unsure: maybe"), "unsure:", "'manual' or 'compensate'"),
        (SQL, (":id\n", "id\n"), "values: {id", ":id is used nowhere"),
        (SQL, ("= :id", "= :id AND x = ':no' /* :no */ OR y = :more"), "sql:", ":more is not among"),
        (SQL, (UPDATE, 'sql: "UPDATE a SET b = :id; COMMIT"'), "sql:", "may not hold COMMIT"),
        (SQL, (UPDATE, "sql: UPDATE a SET b = 'x WHERE id = :id"), "sql:", "that nothing closes"),
        (SQL, (UPDATE, 'sql: " -- :id"'), "sql:", "holds no statement"),
    ],
)
def test_what_cannot_work_is_named_with_its_line(
    write: Callable[..., Path], good: str, swap: tuple[str, str], line: str, says: str
) -> None:
    assert swap[0] in good
    told = refusal(write, good.replace(*swap, 1))
    assert told.startswith(line)
    assert says in told


def test_a_workflow_must_be_another_one_of_the_app(write: Callable[..., Path]) -> None:
    def step(key: str) -> str:
        return STEP.replace("manual: refund it", f"compensation: {{kind: workflow, workflow: {key}}}")

    assert "no workflow 'refund'. Use the key of a workflow: intake, payment" in refusal(write, step("refund"))
    assert "cannot take back its own step" in refusal(write, step("payment"))


def test_steps_have_names_of_their_own(write: Callable[..., Path]) -> None:
    assert "step 'charge' is there already" in refusal(write, STEP + STEP)
    assert "there is no `compensation:` to do" in refusal(
        write, STEP.replace("manual: refund it", "unsure: compensate")
    )


@pytest.mark.parametrize(
    ("sql", "queries"),
    [
        ("SELECT :a::text, b::int", ["SELECT %(a)s::text, b::int"]),
        ("SELECT ':a', \":b\", $$:c$$, $x$:d; $x$", ["SELECT ':a', \":b\", $$:c$$, $x$:d; $x$"]),
        ("SELECT E'\\':e' -- :f\n/* :g; */ LIMIT :h", ["SELECT E'\\':e'  \n  LIMIT %(h)s"]),
        ("SELECT 5 % 3; ; SELECT 'it''s; :a';", ["SELECT 5 %% 3", "SELECT 'it''s; :a'"]),
        ("SELECT a[1:2], x FROM f(v := :v)", ["SELECT a[1:2], x FROM f(v := %(v)s)"]),
    ],
)
def test_names_are_found_in_sql_and_nowhere_else(sql: str, queries: list[str]) -> None:
    assert [s.query for s in placeholders.statements(sql)] == queries
