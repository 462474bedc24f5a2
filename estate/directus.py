"""A headless Directus 12 on the embedded PostgreSQL; its administrator and static token are made on the first start."""

import subprocess
from pathlib import Path

import httpx
import psycopg
from psycopg import sql

from estate import node, ports, process, secrets, web
from estate.errors import StartFailed, tail
from estate.files import Memory, write_private
from estate.postgres import Cluster
from estate.server import Server

HOST = Path(__file__).with_name("directus_host")
DATABASE = ROLE = "directus"
APP_SCHEMA = "app"
"""Where an app's tables may lie, apart from Directus' own, which are never fenced or journaled. Others own them."""
ADMIN_EMAIL = "owner@example.com"
"""Directus refuses addresses under reserved names; nothing is ever sent."""
TOKEN = "DIRECTUS_TOKEN"  # noqa: S105 - the name of the secret
START_TIMEOUT_S = 180.0
BOOTSTRAP_TIMEOUT_S = 300.0


class Directus(Server):
    """The Directus of one estate; its files lie in ``folder``, its records in the cluster's database ``directus``.

    Asked to end, it waits for the requests it is answering; what a flow does after its answer is cut off.
    """

    name = "directus"

    def __init__(self, folder: Path, *, cluster: Cluster, memory: Memory, secrets_file: Path, log: Path) -> None:
        super().__init__(folder, memory=memory, secrets_file=secrets_file, log=log)
        self.cluster = cluster

    def healthy(self) -> bool:
        """Whether it runs, has its database and takes the token."""
        token = self.secret(TOKEN)
        if self.process() is None or not token:
            return False
        with web.client(self.url, timeout_s=web.PROBE_TIMEOUT_S) as http:
            try:
                answer = http.get("/users/me", headers={"Authorization": f"Bearer {token}"})
            except httpx.TransportError:
                return False
        return answer.status_code == httpx.codes.OK

    def start(self, modules: Path, cache: Path) -> None:
        """Start Directus from ``modules`` unless it is healthy; the cluster must be up. Raises StartFailed."""
        if self.healthy():
            return
        self.stop()
        self.make_folder()
        kept = secrets.ensure(
            self.secrets_file, "DIRECTUS_DB_PASSWORD", "DIRECTUS_SECRET", "DIRECTUS_ADMIN_PASSWORD", TOKEN
        )
        self._make_database(kept["DIRECTUS_DB_PASSWORD"])
        port = self.choose_port()
        environment = self._environment(kept, port, cache)
        program = modules / "node_modules" / "directus" / "cli.js"
        made = self.folder / "tables-of"
        if not made.exists() or made.read_text(encoding="utf-8") != modules.name:
            self._bootstrap(program, environment)
            write_private(made, modules.name)
        process.launch(
            [node.binary(), program, "start"],
            pid_file=self.pid_file,
            log=self.log,
            cwd=self.folder,
            environment=environment,
        )
        web.await_health(
            f"{self.url}/server/ping",
            part="directus",
            process=self.process,
            patience_s=START_TIMEOUT_S,
            log=self.log,
        )
        if not self.healthy():
            raise StartFailed(
                f"directus at {self.url} refuses the token of {self.secrets_file}; restore that file, or take the "
                "estate down and remove its home to start over"
            )

    def _make_database(self, password: str) -> None:
        self.cluster.own_database(DATABASE, ROLE, password)
        with psycopg.connect(self.cluster.dsn(DATABASE), autocommit=True) as connection:
            # Directus does not start when a schema of its search path is missing.
            schema = sql.Identifier(APP_SCHEMA)
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, sql.Identifier(ROLE)))

    def _bootstrap(self, program: Path, environment: dict[str, str]) -> None:
        """Make Directus' own tables and its administrator, or bring the tables of an older release up to date."""
        with self.log.open("ab") as log:
            try:
                answer = subprocess.run(
                    [node.binary(), program, "bootstrap"],
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=BOOTSTRAP_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as problem:
                raise StartFailed(
                    f"directus did not make its tables in {problem.timeout:.0f} s; {tail(self.log)}"
                ) from problem
        if answer.returncode != 0:
            raise StartFailed(f"directus could not make its tables; {tail(self.log)}")

    def _environment(self, kept: dict[str, str], port: int, cache: Path) -> dict[str, str]:
        return {
            **node.environment(self.folder, cache),
            "HOST": ports.LOOPBACK,
            "PORT": str(port),
            "PUBLIC_URL": f"http://{ports.LOOPBACK}:{port}",
            "DB_CLIENT": "pg",
            "DB_HOST": ports.LOOPBACK,
            "DB_PORT": str(self.cluster.port),
            "DB_DATABASE": DATABASE,
            "DB_USER": ROLE,
            "DB_SEARCH_PATH": f"array:public,{APP_SCHEMA}",
            "DB_PASSWORD": kept["DIRECTUS_DB_PASSWORD"],
            "SECRET": kept["DIRECTUS_SECRET"],
            "ADMIN_EMAIL": ADMIN_EMAIL,
            "ADMIN_PASSWORD": kept["DIRECTUS_ADMIN_PASSWORD"],
            "ADMIN_TOKEN": kept[TOKEN],
            "STORAGE_LOCAL_ROOT": str(self.folder / "uploads"),
            "EXTENSIONS_PATH": str(self.folder / "extensions"),
            "IMPORT_IP_DENY_LIST": "169.254.169.254",  # servers of an app under test are on the loopback address
            "LOG_LEVEL": "warn",
            "SERVE_APP": "false",
            "TELEMETRY": "false",
            "MCP_ENABLED": "false",
            "AI_ENABLED": "false",
            "WEBSOCKETS_ENABLED": "false",
            "EMAIL_VERIFY_SETUP": "false",
            "RETENTION_ENABLED": "false",
            "CACHE_ENABLED": "false",
            "PRESSURE_LIMITER_ENABLED": "false",
        }
