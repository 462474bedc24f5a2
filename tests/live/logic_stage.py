"""What a platform brings to the story of the logic path, and what its three workflows do; see ``logic_story.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import pytest

WORKFLOWS = {"intake": "Story intake", "confirm": "Story confirm", "audit": "Story audit"}

How = Literal["good", "bad"]

STAGES = [
    pytest.param("n8n_stage", id="n8n", marks=[pytest.mark.n8n]),
    pytest.param("node_red_stage", id="node-red", marks=[pytest.mark.node_red]),
    pytest.param("directus_stage", id="directus", marks=[pytest.mark.directus]),
]
"""Names of the session fixtures that give a :class:`Stage`."""


class Stage(Protocol):
    """A live platform with PostgreSQL beside it, running for the whole session. Each story asks for
    :meth:`database`, then :meth:`prepare`, and ends with :meth:`clear`."""

    @property
    def kind(self) -> str:
        """The catalogue's ``platform.kind``."""

    @property
    def url(self) -> str:
        """The platform's address, without a slash at the end."""

    @property
    def api_key(self) -> str: ...

    @property
    def ingress(self) -> bool:
        """Whether senders call the ingress instead of the platform. Behind the ingress a workflow answers when its
        work is done; called directly, as soon as it has the event and before it does anything."""

    @property
    def schema(self) -> str:
        """Where ``orders`` and ``receipts`` are made."""

    @property
    def roles(self) -> Mapping[str, str]:
        """The database role of each workflow; the same for all where the platform has but one. Roles that are missing
        are made by the story, and what a role may do in :attr:`schema` is granted by it."""

    def database(self) -> str:
        """The superuser's connection string (an address) of the database that holds the shop: without its tables, and
        without schema ``reinstate``."""

    def prepare(self, dsn: Callable[[str], str]) -> None:
        """Make what definitions lean on (credentials, collections). Tables and roles exist; ``dsn`` gives a role's
        connection string."""

    def definition(self, workflow: str, how: How) -> Mapping[str, Any]:
        """Content of the workflow for ``Platform.create`` and ``save``, named as in :data:`WORKFLOWS`. Where the
        platform can, writes carry ``reinstate.run``; see :func:`statement`."""

    def path(self, workflow: str) -> str:
        """Of its entry below :attr:`url`, with a slash in front."""

    def clear(self) -> None:
        """Remove the workflows of the story, and what :meth:`prepare` made."""


def statement(workflow: str, how: How, *, schema: str) -> str:
    """What the workflow does as SQL: ``$1`` is the run (text), ``$2`` the event's body (JSON text). Returns the key."""
    run = "WITH run AS MATERIALIZED (SELECT set_config('reinstate.run', $1, true)),\n"
    if workflow != "intake":
        return (
            f"{run}e AS (SELECT * FROM jsonb_to_record($2::jsonb) AS e (event text, order_event text))\n"
            f"INSERT INTO {schema}.receipts (event, order_event) SELECT e.event, e.order_event FROM run, e RETURNING id"
        )
    body = f"{run}e AS (SELECT * FROM jsonb_to_record($2::jsonb) AS e (event text, total numeric, damages text))"
    damage = (
        f",\nlost AS (UPDATE {schema}.orders AS o SET status = 'lost' FROM run, e WHERE o.event = e.damages)"
        if how == "bad"
        else ""
    )
    factor = " * 100" if how == "bad" else ""
    return (
        f"{body}{damage}\nINSERT INTO {schema}.orders (event, total) SELECT e.event, e.total{factor} FROM run, e "
        "RETURNING id"
    )
