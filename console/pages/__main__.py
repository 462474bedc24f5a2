"""``python -m console.pages``: serve the pages until told to stop (SIGTERM, Ctrl-C)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from catalog.errors import CatalogError
from console import exits
from console.pages.door import password
from console.pages.site import application
from recovery.context import default_home

HOST = "127.0.0.1"
EXAMPLE = "Example: python -m console.pages --port 4300"


def main(arguments: list[str] | None = None) -> int:
    """Serve on loopback. Exit code 3 without a password to guard the pages with."""
    parser = argparse.ArgumentParser(prog="python -m console.pages", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--port", type=int, default=4300, help="Port on 127.0.0.1.")
    port = parser.parse_args(arguments).port
    home = default_home()
    catalog = os.environ.get("REINSTATE_CATALOG")
    try:
        password(home)
    except CatalogError as error:
        sys.stderr.write(f"pages: {' '.join(str(error).split())}; `reinstate up` makes one\n")
        return exits.code(error)
    import uvicorn

    sys.stdout.write(f"pages: http://{HOST}:{port}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        application(home, Path(catalog) if catalog else None),
        host=HOST,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
    )
    uvicorn.Server(config).run()
    return exits.OK


if __name__ == "__main__":
    sys.exit(main())
