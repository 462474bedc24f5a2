"""``python -m console.service.part EXIT_FILE MODULE ARGUMENT...``: run a module as a program, and leave its exit code.

A supervised process belongs to nobody, so nobody is told how it ended: it writes that down itself. Without a note it
was killed.
"""

from __future__ import annotations

import runpy
import sys
import traceback
from pathlib import Path


def main(exit_file: Path, module: str, arguments: list[str]) -> int:
    """The module's exit code, also written to ``exit_file``."""
    exit_file.unlink(missing_ok=True)
    code = 0
    sys.argv[1:] = arguments
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001 - whatever it is, the supervisor must hear of it
        traceback.print_exc()
        code = 1
    exit_file.write_text(f"{code}\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
