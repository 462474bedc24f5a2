"""A headless n8n 2 on the embedded PostgreSQL, with its owner and an API key made on the first start."""

import os
from pathlib import Path

import httpx

from estate import node, ports, process, secrets, web
from estate.errors import StartFailed, tail
from estate.files import Memory
from estate.postgres import Cluster
from estate.server import Server

DATABASE = ROLE = "n8n"
OWNER_EMAIL = "owner@reinstate.invalid"
BROWSER_ID = {"browser-id": "reinstate-estate"}
"""n8n ties a session to the browser's id: any constant will do."""
START_TIMEOUT_S = 240.0
API_KEY = "N8N_API_KEY"
UNUSED_MODULES = "instance-ai,agents,chat-hub,mcp,workflow-builder,mcp-registry,agent-evals"


class N8n(Server):
    """The n8n of one estate; its files lie in ``folder``, its records in the cluster's database ``n8n``."""

    name = "n8n"
    stop_after_s = 40.0
    """n8n itself waits up to 30 s for runs in flight before it leaves."""

    def __init__(self, folder: Path, *, cluster: Cluster, memory: Memory, secrets_file: Path, log: Path) -> None:
        super().__init__(folder, memory=memory, secrets_file=secrets_file, log=log)
        self.cluster = cluster

    def healthy(self) -> bool:
        """Whether it runs, has its database and is set up."""
        return (
            self.process() is not None and self.secret(API_KEY) != "" and web.healthy(f"{self.url}/healthz/readiness")
        )

    def start(self, modules: Path, cache: Path) -> None:
        """Start n8n from ``modules`` unless it is healthy; the cluster must be up. Raises StartFailed."""
        if self.healthy():
            return
        self.stop()
        self.make_folder()
        kept = secrets.ensure(self.secrets_file, "N8N_DB_PASSWORD", "N8N_ENCRYPTION_KEY", "N8N_OWNER_PASSWORD")
        self.cluster.own_database(DATABASE, ROLE, kept["N8N_DB_PASSWORD"])
        port = ports.choose(self.memory.port("n8n"))
        broker_port = ports.choose(self.memory.port("n8n", "broker_port"))
        self.memory.write("n8n", {"port": str(port), "broker_port": str(broker_port)})
        # After a crash n8n waits 10 s to slow down a supervisor's restart loop; here nobody restarts it in a loop.
        (self.folder / ".n8n" / "crash.journal").unlink(missing_ok=True)
        process.launch(
            [node.binary(), modules / "node_modules" / "n8n" / "bin" / "n8n", "start"],
            pid_file=self.pid_file,
            log=self.log,
            cwd=self.folder,
            environment=self._environment(kept, port, broker_port, cache),
        )
        web.await_health(
            f"{self.url}/healthz/readiness",
            part="n8n",
            process=self.process,
            patience_s=START_TIMEOUT_S,
            log=self.log,
        )
        self._ensure_api_key(kept["N8N_OWNER_PASSWORD"])

    def _environment(self, kept: dict[str, str], port: int, broker_port: int, cache: Path) -> dict[str, str]:
        return {
            **node.environment(self.folder, cache),
            "GENERIC_TIMEZONE": "UTC",
            "DB_TYPE": "postgresdb",
            "DB_POSTGRESDB_HOST": ports.LOOPBACK,
            "DB_POSTGRESDB_PORT": str(self.cluster.port),
            "DB_POSTGRESDB_DATABASE": DATABASE,
            "DB_POSTGRESDB_USER": ROLE,
            "DB_POSTGRESDB_PASSWORD": kept["N8N_DB_PASSWORD"],
            "N8N_ENCRYPTION_KEY": kept["N8N_ENCRYPTION_KEY"],
            "N8N_USER_FOLDER": str(self.folder),
            "N8N_HOST": ports.LOOPBACK,
            "N8N_PORT": str(port),
            "N8N_LISTEN_ADDRESS": ports.LOOPBACK,
            "N8N_RUNNERS_BROKER_PORT": str(broker_port),
            "N8N_RUNNERS_BROKER_LISTEN_ADDRESS": ports.LOOPBACK,
            "N8N_PYTHON_ENABLED": "false",
            "N8N_SECURE_COOKIE": "false",
            "N8N_SSRF_PROTECTION_ENABLED": "false",  # the app's database is on the loopback address
            "N8N_DIAGNOSTICS_ENABLED": "false",
            "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
            "N8N_TEMPLATES_ENABLED": "false",
            "N8N_PERSONALIZATION_ENABLED": "false",
            "N8N_COMMUNITY_PACKAGES_ENABLED": "false",
            "N8N_METRICS": "true",
            "N8N_DISABLED_MODULES": UNUSED_MODULES,
            "N8N_CONCURRENCY_PRODUCTION_LIMIT": "-1",
            "N8N_WORKFLOW_AUTODEACTIVATION_ENABLED": "false",
            "EXECUTIONS_DATA_SAVE_ON_SUCCESS": "all",
            "EXECUTIONS_DATA_SAVE_ON_ERROR": "all",
            "EXECUTIONS_DATA_PRUNE": "false",
        }

    def _ensure_api_key(self, password: str) -> None:
        """Keep an API key that works in the secrets file; the owner is set up when nobody was yet."""
        with web.client(self.url) as http:
            key = self.secret(API_KEY)
            if key and self._answer(http, "GET", "/api/v1/workflows?limit=1", key=key).is_success:
                return
            owner = {"email": OWNER_EMAIL, "firstName": "Reinstate", "lastName": "Owner", "password": owned(password)}
            if "showSetupOnFirstLoad" not in self._answer(http, "GET", "/rest/settings").text:
                raise StartFailed(f"n8n at {self.url} gives no settings; {tail(self.log)}")
            self._answer(http, "POST", "/rest/owner/setup", body=owner)
            login = {"emailOrLdapLoginId": OWNER_EMAIL, "password": owned(password)}
            answer = self._answer(http, "POST", "/rest/login", body=login)
            if not answer.is_success:
                raise StartFailed(
                    f"n8n at {self.url} refuses its owner ({answer.status_code}); restore {self.secrets_file}, "
                    "or take the estate down and remove its home to start over"
                )
            scopes = self._answer(http, "GET", "/rest/api-keys/scopes").json()["data"]
            body = {"label": f"reinstate {os.urandom(4).hex()}", "expiresAt": None, "scopes": scopes}
            answer = self._answer(http, "POST", "/rest/api-keys", body=body)
            if not answer.is_success:
                raise StartFailed(f"n8n at {self.url} gives no API key: {answer.text[:200]}")
            secrets.write(self.secrets_file, {API_KEY: answer.json()["data"]["rawApiKey"]})

    def _answer(
        self, http: httpx.Client, method: str, path: str, *, body: object = None, key: str | None = None
    ) -> httpx.Response:
        headers = {"X-N8N-API-KEY": key} if key else BROWSER_ID
        try:
            return http.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise StartFailed(f"n8n at {self.url} broke off {method} {path}: {error}; {tail(self.log)}") from error


def owned(password: str) -> str:
    """The owner's password in the form n8n asks for: with a digit and a capital letter."""
    return f"A1{password}"
