"""The estate as a whole: everything under one home directory, started, looked at and stopped together."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import platformdirs
import psutil

from estate import node, secrets
from estate.directus import HOST as DIRECTUS_HOST
from estate.directus import TOKEN as DIRECTUS_TOKEN
from estate.directus import Directus
from estate.errors import EstateError
from estate.files import Memory, locked
from estate.n8n import N8n
from estate.node_red import HOST as NODE_RED_HOST
from estate.node_red import NodeRed
from estate.ports import LOOPBACK
from estate.postgres import Cluster
from estate.prefect_server import PrefectServer
from estate.progress import Listener, Progress, one_at_a_time, silence

PARTS = ("postgres", "n8n", "prefect")
ON_DEMAND = ("node-red", "directus")
"""Parts that start only when they are named."""
LOCK_PATIENCE_S = 1800.0


def default_home() -> Path:
    """``$REINSTATE_HOME``, by default below the user's data directory."""
    given = os.environ.get("REINSTATE_HOME")
    return Path(given).expanduser() if given else Path(platformdirs.user_data_dir("reinstate"))


def default_cache() -> Path:
    """``$REINSTATE_CACHE``, by default the user's cache directory; shared by all homes."""
    given = os.environ.get("REINSTATE_CACHE")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("reinstate"))


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the parts are. An address is empty (a port 0) when its part was never started."""

    pg_host: str
    pg_port: int
    pg_socket_dir: Path | None
    superuser_password: str = field(repr=False)
    n8n_url: str
    n8n_api_key: str = field(repr=False)
    directus_url: str
    directus_token: str = field(repr=False)
    """The administrator's static token."""
    node_red_url: str
    node_red_token: str = field(repr=False)
    """Bearer token of the admin API."""
    prefect_url: str
    prefect_auth: str = field(repr=False)
    """``user:password`` of the Prefect server: the value of ``PREFECT_API_AUTH_STRING``."""
    secrets_file: Path
    download_s: float
    """Seconds spent on downloads, contained in ``total_s``; 0 when the cache had everything."""
    total_s: float

    @property
    def prefect_api_url(self) -> str:
        """The value of ``PREFECT_API_URL``."""
        return f"{self.prefect_url}/api" if self.prefect_url else ""

    def dsn(self, database: str, role: str, password: str) -> str:
        """Connection string of a role over TCP."""
        return f"postgresql://{quote(role)}:{quote(password, safe='')}@{self.pg_host}:{self.pg_port}/{quote(database)}"

    def superuser_dsn(self, database: str = "postgres") -> str:
        """For making databases and roles; the product itself never uses it."""
        return self.dsn(database, "postgres", self.superuser_password)


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """One part as it is now."""

    part: str
    state: str
    """``up``, ``down``, or ``unhealthy``: the process is there but does not answer."""
    pid: int | None
    address: str
    log: Path


class Estate:
    """PostgreSQL, n8n and a Prefect server under ``home``. Starting and stopping exclude each other by a lock."""

    def __init__(self, home: Path | None = None, *, cache: Path | None = None) -> None:
        self.home = (home or default_home()).absolute()
        self.cache = (cache or default_cache()).absolute()
        self.secrets_file = self.home / secrets.FILE
        self.memory = Memory(self.home / "estate.json")
        self._download_s = 0.0

    def __repr__(self) -> str:
        return f"Estate({str(self.home)!r})"

    def up(self, parts: Sequence[str] = PARTS, *, progress: Listener = silence) -> Addresses:
        """Start the parts that do not run, repair those that do not answer, and say where they are.

        n8n and Directus bring PostgreSQL with them. ``progress`` is called from other threads, but never twice at
        once. A part that fails does not stop the others: they are up, and the next call starts only what is missing.
        Raises EstateError.
        """
        unknown = sorted(set(parts) - {*PARTS, *ON_DEMAND})
        if unknown:
            known = ", ".join((*PARTS, *ON_DEMAND))
            raise EstateError(f"estate: unknown part {', '.join(unknown)}; choose from {known}")
        started = time.monotonic()
        tell = one_at_a_time(progress)
        self._make_home()
        self._download_s = 0.0
        with self._lock(tell):
            lanes: list[Callable[[], None]] = []
            if {"postgres", "n8n", "directus"} & set(parts):
                lanes.append(lambda: self._start_platforms(parts, tell))
            if "node-red" in parts:
                lanes.append(lambda: self._start_on_node("node-red", NODE_RED_HOST, self.node_red(), tell))
            if "prefect" in parts:
                lanes.append(lambda: self._timed("prefect", self.prefect().healthy, self.prefect().start, tell))
            with ThreadPoolExecutor(max_workers=2) as pool:
                results = [pool.submit(lane) for lane in lanes]
            for result in results:
                result.result()
        return self.addresses(total_s=time.monotonic() - started)

    def status(self) -> tuple[PartStatus, ...]:
        """Every part as it is now, those on demand once they were started; changes nothing and waits for nobody."""
        if not self.home.is_dir():
            return tuple(
                PartStatus(part=part, state="down", pid=None, address="", log=self._log(part)) for part in PARTS
            )
        cluster, n8n, prefect = self.cluster(), self.n8n(), self.prefect()
        node_red, directus = self.node_red(), self.directus()
        return (
            self._status("postgres", cluster.process(), cluster.answers, f"{LOOPBACK}:{cluster.port}"),
            self._status("n8n", n8n.process(), n8n.healthy, n8n.url),
            self._status("prefect", prefect.process(), prefect.healthy, prefect.url),
            *([self._status("node-red", node_red.process(), node_red.healthy, node_red.url)] if node_red.url else []),
            *([self._status("directus", directus.process(), directus.healthy, directus.url)] if directus.url else []),
        )

    def down(self, *, progress: Listener = silence) -> None:
        """Stop every part in order; no process and no socket is left. Harmless when it is down. Raises EstateError."""
        if not self.home.is_dir():
            return
        tell = one_at_a_time(progress)
        with self._lock(tell):
            with ThreadPoolExecutor(max_workers=2) as pool:
                results = [
                    pool.submit(self._stopped, "n8n", self.n8n().stop, tell),
                    *(
                        [pool.submit(self._stopped, "node-red", self.node_red().stop, tell)]
                        if self.node_red().url
                        else []
                    ),
                    *(
                        [pool.submit(self._stopped, "directus", self.directus().stop, tell)]
                        if self.directus().url
                        else []
                    ),
                    pool.submit(self._stopped, "prefect", self.prefect().stop, tell),
                ]
            self._stopped("postgres", self.cluster().stop, tell)
            for result in results:
                result.result()

    def addresses(self, *, total_s: float = 0.0) -> Addresses:
        """Where the parts are, or were when they last ran."""
        known = secrets.read(self.secrets_file)
        cluster = self.cluster()
        return Addresses(
            pg_host=LOOPBACK,
            pg_port=cluster.port,
            pg_socket_dir=cluster.socket_dir,
            superuser_password=cluster.superuser_password,
            n8n_url=self.n8n().url,
            n8n_api_key=known.get("N8N_API_KEY", ""),
            directus_url=self.directus().url,
            directus_token=known.get(DIRECTUS_TOKEN, ""),
            node_red_url=self.node_red().url,
            node_red_token=self.node_red().token,
            prefect_url=self.prefect().url,
            prefect_auth=self.prefect().auth,
            secrets_file=self.secrets_file,
            download_s=self._download_s,
            total_s=total_s,
        )

    def install(self, *, progress: Listener = silence) -> float:
        """Fetch what is downloaded on the first start, without starting anything; returns the seconds it took."""
        started = time.monotonic()
        tell = one_at_a_time(progress)
        _, seconds = node.modules(
            self.cache,
            lambda stage, text: tell(
                Progress(part="n8n", stage=stage, detail=text, seconds=time.monotonic() - started)
            ),
        )
        return seconds

    def cluster(self) -> Cluster:
        """The embedded PostgreSQL, whether it runs or not."""
        password = secrets.read(self.secrets_file).get("POSTGRES_PASSWORD", "")
        return Cluster(
            self.home / "postgres", superuser_password=password, memory=self.memory, log=self._log("postgres")
        )

    def n8n(self) -> N8n:
        """The n8n, whether it runs or not."""
        return N8n(
            self.home / "n8n",
            cluster=self.cluster(),
            memory=self.memory,
            secrets_file=self.secrets_file,
            log=self._log("n8n"),
        )

    def directus(self) -> Directus:
        """The Directus, whether it runs or not."""
        return Directus(
            self.home / "directus",
            cluster=self.cluster(),
            memory=self.memory,
            secrets_file=self.secrets_file,
            log=self._log("directus"),
        )

    def node_red(self) -> NodeRed:
        """The Node-RED, whether it runs or not."""
        return NodeRed(
            self.home / "node-red", memory=self.memory, secrets_file=self.secrets_file, log=self._log("node-red")
        )

    def prefect(self) -> PrefectServer:
        """The Prefect server, whether it runs or not."""
        return PrefectServer(
            self.home / "prefect", memory=self.memory, secrets_file=self.secrets_file, log=self._log("prefect")
        )

    def _make_home(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / "logs").mkdir(mode=0o700, exist_ok=True)

    def _start_platforms(self, parts: Sequence[str], tell: Listener) -> None:
        if not (self.home / "postgres" / "data").exists():
            secrets.ensure(self.secrets_file, "POSTGRES_PASSWORD")
        cluster = self.cluster()
        self._timed("postgres", cluster.answers, cluster.start, tell)
        if "n8n" in parts:
            self._start_on_node("n8n", node.HOST, self.n8n(), tell)
        if "directus" in parts:
            self._start_on_node("directus", DIRECTUS_HOST, self.directus(), tell)

    def _start_on_node(self, part: str, host: Path, server: N8n | Directus | NodeRed, tell: Listener) -> None:
        def start() -> None:
            begun = time.monotonic()
            modules, seconds = node.modules(
                self.cache,
                lambda stage, text: tell(
                    Progress(part=part, stage=stage, detail=text, seconds=time.monotonic() - begun)
                ),
                host=host,
                part=part,
            )
            self._download_s += seconds
            server.start(modules, self.cache)

        self._timed(part, server.healthy, start, tell)

    def _timed(self, part: str, healthy: Callable[[], bool], start: Callable[[], object], tell: Listener) -> None:
        begun = time.monotonic()
        if healthy():
            tell(Progress(part=part, stage="ready", detail="was running", seconds=time.monotonic() - begun))
            return
        tell(Progress(part=part, stage="start", detail="starting", seconds=0.0))
        start()
        tell(Progress(part=part, stage="ready", detail="started", seconds=time.monotonic() - begun))

    def _stopped(self, part: str, stop: Callable[[], None], tell: Listener) -> None:
        begun = time.monotonic()
        stop()
        tell(Progress(part=part, stage="stopped", detail="stopped", seconds=time.monotonic() - begun))

    def _status(
        self, part: str, process: psutil.Process | None, healthy: Callable[[], bool], address: str
    ) -> PartStatus:
        state = "down" if process is None else "up" if healthy() else "unhealthy"
        pid = process.pid if process else None
        return PartStatus(part=part, state=state, pid=pid, address=address if pid else "", log=self._log(part))

    def _log(self, part: str) -> Path:
        return self.home / "logs" / f"{part}.log"

    def _lock(self, tell: Listener) -> AbstractContextManager[None]:
        def waiting(text: str) -> None:
            tell(Progress(part="estate", stage="waiting", detail=text, seconds=0.0))

        return locked(self.home / "estate.lock", patience_s=LOCK_PATIENCE_S, waiting=waiting)
