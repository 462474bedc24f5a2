"""Turn a secret's reference into its value, at the last moment and only there.

``env:NAME`` looks in the environment, then in a file of ``NAME=value`` lines; ``file:PATH`` reads a file. Values are
returned and never logged, raised or kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from catalog.errors import SecretMissing


def resolve(
    ref: str, env_file: Path | None = None, *, app: str | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """The value behind ``ref``. ``app`` only names the asker in errors; ``environ`` defaults to the process's.

    A relative ``file:`` path starts from the folder of ``env_file``. Raises ``SecretMissing``.
    """
    scheme, _, name = ref.partition(":")
    match scheme:
        case "env" if name:
            value = (os.environ if environ is None else environ).get(name) or _from_file(env_file).get(name, "")
            where = f"set {name} in the environment" + (f", or add it to {env_file}" if env_file else "")
        case "file" if name:
            file = Path(name).expanduser()
            if not file.is_absolute() and env_file is not None:
                file = env_file.parent / file
            value = _text(file).strip("\r\n")
            where = f"write the secret to {file}, readable by this user"
        case _:
            raise SecretMissing(f"{_asker(app)}a secret is not given as a reference. Write env:NAME or file:PATH")
    if not value:
        raise SecretMissing(f"{_asker(app)}secret {ref} is missing or empty. Next: {where}")
    return value


def _asker(app: str | None) -> str:
    return f"app {app!r}: " if app else ""


def _from_file(file: Path | None) -> dict[str, str]:
    """``NAME=value`` lines, the value taken literally; blank lines and ``#`` comments apart."""
    if file is None:
        return {}
    lines = (line.strip() for line in _text(file).splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
