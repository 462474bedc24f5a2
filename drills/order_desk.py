"""Provision the example app `examples/order-desk`: roles, database with history, n8n credentials and workflows.

The seeded history is kept in a template database, so that a reset costs a copy. Three files under ``home`` (0600) hold
what was made up: ``secrets.env`` what the product may know, ``driver.env`` what the drill's driver may know,
``order-desk.env`` the passwords of all roles. The oracle database is a copy of the same template; no role the product
has a password for may connect to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from drills.errors import DrillError
from drills.n8n_api import N8nApi
from estate import secrets

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "order-desk"
DATABASE, TEMPLATE, ORACLE = "order_desk", "order_desk_template", "order_desk_oracle"
OWNER, CAPTURER, RECOVERER, STAFF, JUDGE = (
    "desk_owner", "reinstate_capturer", "reinstate_recoverer", "desk_staff", "desk_judge",
)  # fmt: skip
WORKFLOW_ROLES = {
    "order-intake": "wf_order_intake",
    "payment": "wf_payment",
    "status-change": "wf_status_change",
    "stock-sync": "wf_stock_sync",
    "tidy-up": "wf_tidy_up",
}
ROLES = (OWNER, CAPTURER, RECOVERER, *WORKFLOW_ROLES.values(), STAFF, JUDGE)
SEED = ("schema.sql", "history.sql", "triggers.sql", "grants.sql")
HISTORY_STALE = timedelta(hours=12)
"""Older seeded history is made anew, so that it ends close to the present."""
CONNECTIONS_PER_WORKFLOW = 10

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class OrderDesk:
    """Where the example app lives. ``superuser_dsn`` gives the connection string for a database's name."""

    superuser_dsn: Callable[[str], str] = field(repr=False)
    n8n_url: str
    n8n_key: str = field(repr=False)
    home: Path

    @property
    def secrets_file(self) -> Path:
        """The product's references ``env:ORDER_DESK_...`` resolve here."""
        return self.home / secrets.FILE

    @property
    def _passwords_file(self) -> Path:
        return self.home / "order-desk.env"

    @property
    def driver_file(self) -> Path:
        """For ``python -m drills.driver --secrets``."""
        return self.home / "driver.env"

    def provision(self, progress: Progress = lambda _: None) -> None:
        """Make everything, from nothing or over what is there: afterwards the app is as on its first day.

        Seconds when the template exists. The roles of Reinstate can log in and no more: their rights come from
        ``reinstate roles``. Raises ``DrillError`` or ``psycopg.Error``.
        """
        self.prepare(progress)
        self.reset(progress)

    def prepare(self, progress: Progress = lambda _: None) -> None:
        """Roles with passwords, and the template with two years of history; idempotent."""
        passwords = secrets.ensure(self._passwords_file, *(_password_name(r) for r in ROLES))
        with psycopg.connect(self.superuser_dsn("postgres"), autocommit=True) as connection:
            _roles(connection, passwords)
            if not _template_is_fresh(connection):
                progress("seeding two years of history")
                self._make_template(connection, passwords)

    def reset(self, progress: Progress = lambda _: None) -> None:
        """Bring databases and workflows back to the first day. Needs an earlier :meth:`provision`."""
        with N8nApi(self.n8n_url, self.n8n_key) as api:
            progress("removing the app's workflows")
            _remove_workflows(api)
            progress("copying the seeded databases")
            passwords = self.reset_databases()
            progress("creating credentials and workflows")
            credentials = self._credentials(api, passwords)
            for key in WORKFLOW_ROLES:
                api.activate(api.create_workflow(definition(f"workflows/{key}.json", credentials)))

    def reset_databases(self) -> dict[str, str]:
        """The database half of :meth:`reset`. Returns the passwords, as :meth:`dsn` takes them."""
        passwords = secrets.read(self._passwords_file)
        if not passwords:
            raise DrillError(f"order desk: {self.home} holds no passwords; call provision first")
        with psycopg.connect(self.superuser_dsn("postgres"), autocommit=True) as connection:
            self._copies(connection)
        with psycopg.connect(self.superuser_dsn(ORACLE), autocommit=True) as connection:
            connection.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA desk TO {}").format(sql.Identifier(JUDGE)))
        self._write_secrets(passwords)
        return passwords

    def dsn(self, database: str, role: str, passwords: Mapping[str, str]) -> str:
        """Connection string of a role, as an address."""
        at = conninfo_to_dict(self.superuser_dsn(database))
        user, password = quote(role), quote(passwords[_password_name(role)], safe="")
        return f"postgresql://{user}:{password}@{at['host']}:{at['port']}/{quote(database)}"

    def _make_template(self, connection: psycopg.Connection, passwords: Mapping[str, str]) -> None:
        name = sql.Identifier(TEMPLATE)
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, sql.Identifier(OWNER)))
        anchor = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        with psycopg.connect(self.dsn(TEMPLATE, OWNER, passwords)) as seeding:
            seeding.execute("SELECT set_config('desk.anchor', %s, false)", [anchor.isoformat()])
            for file in SEED:
                seeding.execute((EXAMPLE / "database" / file).read_bytes())
        comment = json.dumps({"seed": _seed_hash(), "anchor": anchor.isoformat()})
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(comment)))

    def _copies(self, connection: psycopg.Connection) -> None:
        for database, owner in ((DATABASE, OWNER), (ORACLE, JUDGE)):
            name = sql.Identifier(database)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY").format(
                    name, sql.Identifier(owner), sql.Identifier(TEMPLATE)
                )
            )
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        roles = sql.SQL(", ").join(map(sql.Identifier, (*WORKFLOW_ROLES.values(), STAFF, JUDGE)))
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(DATABASE), roles))

    def _write_secrets(self, passwords: Mapping[str, str]) -> None:
        secrets.write(
            self.secrets_file,
            {
                "ORDER_DESK_N8N_URL": self.n8n_url,
                "ORDER_DESK_N8N_KEY": self.n8n_key,
                "ORDER_DESK_DB_INSTALLER": self.dsn(DATABASE, OWNER, passwords),
                "ORDER_DESK_DB_CAPTURER": self.dsn(DATABASE, CAPTURER, passwords),
                "ORDER_DESK_DB_RECOVERER": self.dsn(DATABASE, RECOVERER, passwords),
            },
        )
        secrets.write(
            self.driver_file,
            {
                "DRIVER_N8N_URL": self.n8n_url,
                "DRIVER_N8N_KEY": self.n8n_key,
                "DRIVER_DB_STAFF": self.dsn(DATABASE, STAFF, passwords),
                "DRIVER_DB_JUDGE": self.dsn(DATABASE, JUDGE, passwords),
                "DRIVER_DB_ORACLE": self.dsn(ORACLE, JUDGE, passwords),
            },
        )

    def _credentials(self, api: N8nApi, passwords: Mapping[str, str]) -> dict[str, str]:
        known = api.credentials()
        address = conninfo_to_dict(self.superuser_dsn(DATABASE))
        made = {}
        for role in WORKFLOW_ROLES.values():
            name = f"order-desk {role}"
            if name in known:
                api.delete_credential(known[name])
            made[name] = api.create_credential(
                name,
                {
                    "host": str(address["host"]),
                    "port": int(str(address["port"])),
                    "database": DATABASE,
                    "user": role,
                    "password": passwords[_password_name(role)],
                    "maxConnections": CONNECTIONS_PER_WORKFLOW,
                    "ssl": "disable",
                    "allowUnauthorizedCerts": False,
                    "sshTunnel": False,
                },
            )
        return made


def definition(file: str, credentials: Mapping[str, str]) -> dict[str, Any]:
    """A workflow file of the example as n8n takes it, with the ids of ``credentials`` (by name) filled in."""
    content: dict[str, Any] = json.loads((EXAMPLE / file).read_text(encoding="utf-8"))
    for node in content["nodes"]:
        for credential in node.get("credentials", {}).values():
            credential["id"] = credentials[credential["name"]]
    return content


def _roles(connection: psycopg.Connection, passwords: Mapping[str, str]) -> None:
    for role in ROLES:
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
        connection.execute(
            sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                sql.SQL("ALTER" if known else "CREATE"),
                sql.Identifier(role),
                sql.Literal(passwords[_password_name(role)]),
            )
        )


def _template_is_fresh(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [TEMPLATE]
    ).fetchone()
    if row is None or row[0] is None:
        return False
    comment = json.loads(row[0])
    age = datetime.now(UTC) - datetime.fromisoformat(comment["anchor"])
    return bool(comment["seed"] == _seed_hash()) and age < HISTORY_STALE


def _seed_hash() -> str:
    return hashlib.sha256(b"".join((EXAMPLE / "database" / file).read_bytes() for file in SEED)).hexdigest()


def _remove_workflows(api: N8nApi) -> None:
    """The app's workflows, and private copies of them that a recovery left behind."""
    names = {
        json.loads((EXAMPLE / f"workflows/{key}.json").read_text(encoding="utf-8"))["name"] for key in WORKFLOW_ROLES
    }
    credentials = {f"order-desk {role}" for role in WORKFLOW_ROLES.values()}
    for workflow in api.workflows():
        used = {c.get("name") for n in workflow["nodes"] for c in n.get("credentials", {}).values()}
        if workflow["name"] in names or used & credentials:
            api.delete_workflow(str(workflow["id"]))


def _password_name(role: str) -> str:
    return f"PASSWORD_{role.upper()}"
