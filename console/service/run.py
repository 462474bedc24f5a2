"""`reinstate up` from the first check to the last stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from catalog.load import load
from console.errors import BadUse
from console.service import checks, ending, example, processes, settings
from console.service.care import Care
from console.service.news import News
from console.service.settings import Service
from console.service.supervisor import Supervisor
from drills.order_desk import EXAMPLE
from estate import PARTS, Addresses, Estate, Progress, ports
from estate.errors import EstateBusy
from estate.files import locked

PREFECT_ONLY: Final = ("prefect",)
STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """SIGTERM or Ctrl-C arrived while everything was being started."""


@dataclass(kw_only=True)
class Up:
    """One foreground run. ``catalog`` None means the example; ``port`` is that of the Prefect server, 0 for any."""

    home: Path
    catalog: Path | None
    port: int
    fresh: bool
    news: News
    show: Callable[[Service, Addresses | None], None]
    stopping: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.monotonic)
    service: Service | None = None
    _starting: bool = True
    _point: subprocess.Popen[bytes] | None = None
    _told: bool = False

    def __post_init__(self) -> None:
        self.estate = Estate(self.home)

    @property
    def is_example(self) -> bool:
        return example.is_example(self.catalog)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The parts of the estate that this run needs."""
        if self.is_example:
            return PARTS
        return () if os.environ.get("PREFECT_API_URL") else PREFECT_ONLY

    def run(self) -> None:
        """Start everything, keep it running, stop it when told to. Raises what cannot be started."""
        with self._alone(), self._signals():
            try:
                self._start()
                self._starting = False
                if not self.stopping.is_set():
                    self._keep()
            except Stopped:
                pass
            finally:
                self._starting = False
                self._end()

    def _start(self) -> None:
        self._clear()
        if self.is_example:
            addresses = self._estate()
            needs_point = example.prepare(self.home, addresses, fresh=self.fresh, say=self._say)
            self.service = self._service(EXAMPLE, (example.APP,), addresses.prefect_api_url)
            if needs_point:
                self._say("order desk: taking and proving the first recovery point")
                environment = {**processes.inherited(), **settings.environment(self.service)}
                self._point = example.taking_point(environment, self.home / "logs" / "first-point.log")
            return
        assert self.catalog is not None  # noqa: S101 - else it is the example
        catalog = self.catalog.absolute()
        found = checks.catalogue(catalog, self._say)
        for app in found.apps:
            checks.app(catalog, app.key, self.home, self._say)
        url = self._estate().prefect_api_url if self.wanted else os.environ["PREFECT_API_URL"]
        self.service = self._service(catalog, tuple(a.key for a in found.apps), url)

    def _clear(self) -> None:
        """What a killed drill left behind is in nobody's way, but costs memory."""
        from drills import sandbox
        from drills.errors import DrillHeld

        with suppress(DrillHeld):
            sandbox.clear_abandoned(self.home, say=self._say)

    def _estate(self) -> Addresses:
        if self.port and self.estate.prefect().process() is None:
            if not ports.is_free(self.port):
                raise BadUse(f"up: --port {self.port}: something else listens there; choose another one")
            self.estate.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.estate.memory.write("prefect", {"port": str(self.port)})
        return self.estate.up(self.wanted, progress=self._progress)

    def _service(self, catalog: Path, apps: tuple[str, ...], url: str) -> Service:
        from console import flow_runs

        auth = os.environ.get("PREFECT_API_AUTH_STRING", "") if not self.wanted else self.estate.prefect().auth
        flow_runs.check(url, auth)
        self._say(f"Prefect server: {flow_runs.without_credentials(url)} answers and knows us")
        return Service(
            home=self.home,
            catalog=catalog,
            apps=apps,
            prefect_api_url=url,
            auth=auth,
            pages_port=self._pages_port(),
            ingresses=tuple(a.key for a in load(catalog).apps if a.key in apps and a.ingress is not None),
        )

    def _pages_port(self) -> int:
        known = self.estate.memory.port(settings.PAGES)
        if settings.PAGES in processes.recorded(self.home) and known and not ports.is_free(known):
            return known
        port = ports.choose(known)
        self.estate.memory.write(settings.PAGES, {"port": str(port)})
        return port

    def _keep(self) -> None:
        care = Care(estate=self.estate, wanted=self.wanted, news=self.news, moved=self._moved)

        def tend() -> None:
            care.tend()
            self._tell_when_ready()

        Supervisor(parts=self._parts, news=self.news, stopping=self.stopping, tend=tend).run()
        care.wait(ending.REPAIR_S)

    def _parts(self) -> tuple[processes.Part, ...]:
        assert self.service is not None  # noqa: S101 - it is made before the loop
        return settings.parts(self.service)

    def _moved(self) -> None:
        if self.service is not None and self.wanted:
            url = self.estate.addresses().prefect_api_url
            self.service = self._service(self.service.catalog, self.service.apps, url)

    def _tell_when_ready(self) -> None:
        """Once: the flows are served, and the example can be recovered."""
        if self._told or self.service is None or not self._serving():
            return
        if self._point is not None:
            if self._point.poll() is None:
                return
            if self._point.returncode != 0:
                log = self.home / "logs" / "first-point.log"
                self.news("failed", f"the first recovery point could not be taken; see {log}", part="protect")
        self._told = True
        self.show(self.service, self.estate.addresses() if self.is_example else None)

    def _serving(self) -> bool:
        server = next(p for p in self._parts() if p.name == settings.SERVER)
        return server.ready_file.exists() and processes.running(server) is not None

    def _end(self) -> None:
        began = time.monotonic()
        self.news("stopping", "stopping everything; nothing is lost")
        if self._point is not None and self._point.poll() is None:
            self._point.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._point.wait(3)
            self._point.kill()
            self._point.wait()
        ending.everything(self.estate, self.wanted)
        self.news("stopped", f"everything is stopped ({time.monotonic() - began:.1f} s); its data is kept")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """At most one `reinstate up` per home. Raises ``estate.EstateBusy``."""
        folder = self.home / processes.FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / "logs").mkdir(mode=0o700, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(locked(folder / ending.LOCK, patience_s=0.0))
            except EstateBusy:
                holder = (folder / ending.LOCK).read_text("utf-8").strip() or "unknown"
                raise EstateBusy(
                    f"up: process {holder} runs everything of {self.home} already; stop it with `reinstate down`"
                ) from None
            held.callback((folder / ending.NOTE).unlink, missing_ok=True)
            ending.note(self.home)
            yield

    @contextmanager
    def _signals(self) -> Iterator[None]:
        kept = {number: signal.signal(number, self._told_to_stop) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _told_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        again, starting = self.stopping.is_set(), self._starting
        self.stopping.set()
        if starting and not again:
            # A part that is being started is waited for; ended, it is not.
            threading.Thread(target=ending.hasten, args=(self.estate, self.wanted), daemon=True).start()
            raise Stopped

    def _progress(self, step: Progress) -> None:
        text = f"{step.part}: {step.detail}" + (f" ({step.seconds:.1f} s)" if step.stage == "ready" else "")
        self.news("estate", text, part=step.part, stage=step.stage, seconds=round(step.seconds, 1))

    def _say(self, text: str) -> None:
        self.news("check", text)
