"""What README tells a stranger to type, and a clean clone to type it in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

ROOT: Final = Path(__file__).resolve().parents[2]
SECTION: Final = "## Do it yourself, in the browser"
COMMAND: Final = re.compile(r"^ {4}(\S.*?)(?:\s{2,}#.*)?$", re.MULTILINE)
CLONE_S: Final = 120


@dataclass(frozen=True, kw_only=True)
class Told:
    """The commands of README's section, by terminal, in the order in which they stand there."""

    first: tuple[str, ...]
    second: tuple[str, ...]


def read(readme: str) -> Told:
    """The commands of the section that is about the browser. Raises AssertionError when it is gone or tells none."""
    assert SECTION in readme, f"README has no section {SECTION!r}"
    section = readme.split(SECTION, 1)[1].split("\n## ", 1)[0]
    before, between, after = section.partition("second terminal")
    assert between, "README does not say when a second terminal is needed"
    told = Told(first=tuple(COMMAND.findall(before)), second=tuple(COMMAND.findall(after)))
    assert told.first, "README tells nothing for the first terminal"
    assert told.second, "README tells nothing for the second terminal"
    return told


def clone(folder: Path) -> Path:
    """A clean clone of this checkout: what is committed and nothing else."""
    at = folder / "reinstate"
    git = shutil.which("git")
    assert git, "git is not on the PATH; install it"
    subprocess.run(
        [git, "clone", "--quiet", "--no-local", ROOT.as_uri(), str(at)],
        check=True,
        timeout=CLONE_S,
        capture_output=True,
    )
    return at


def environment(home: Path) -> dict[str, str]:
    """That of somebody who has just signed in, with an empty home. What a machine says about its package registries
    is kept, and so are downloads of n8n, which are nobody's time to measure twice."""
    found = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "npm_config_", "NPM_CONFIG_"))}
    found |= _registries(Path.home())
    return {
        **found,
        "HOME": str(home),
        "PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "REINSTATE_CACHE": os.environ.get("REINSTATE_CACHE") or platformdirs.user_cache_dir("reinstate"),
    }


def _registries(home: Path) -> Mapping[str, str]:
    files = {"PIP_CONFIG_FILE": home / ".config" / "pip" / "pip.conf", "NPM_CONFIG_USERCONFIG": home / ".npmrc"}
    return {name: str(file) for name, file in files.items() if name not in os.environ and file.is_file()}
