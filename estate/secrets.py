"""The estate's passwords and keys: ``NAME=value`` lines in one file of mode 0600, merged atomically."""

import re
import secrets as random
from collections.abc import Mapping
from pathlib import Path

from estate.errors import EstateError
from estate.files import locked, write_private

FILE = "secrets.env"
NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")
LOCK_PATIENCE_S = 10.0


def read(file: Path) -> dict[str, str]:
    """Every secret in the file by name; empty when there is no file."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def write(file: Path, values: Mapping[str, str]) -> None:
    """Merge secrets into the file; names not given stay as they are.

    Raises EstateError for a name or value that would not come back the same.
    """
    for name, value in values.items():
        if not NAME.match(name):
            raise EstateError(f"secret {name!r}: a name consists of A-Z, 0-9 and _; choose another name")
        if not value or value != value.strip() or len(value.splitlines()) != 1:
            raise EstateError(f"secret {name}: the value is empty, has spaces around it or several lines; encode it")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(file.with_name(f".{file.name}.lock"), patience_s=LOCK_PATIENCE_S):
        merged = {**read(file), **values}
        write_private(file, "".join(f"{name}={value}\n" for name, value in sorted(merged.items())))


def ensure(file: Path, *names: str) -> dict[str, str]:
    """The named secrets; those still missing are made up at random and kept."""
    known = read(file)
    missing = {name: random.token_urlsafe(24) for name in names if name not in known}
    if missing:
        write(file, missing)
    known = {**missing, **known}
    return {name: known[name] for name in names}
