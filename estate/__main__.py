"""``python -m estate up|down|status|install``: the estate of ``$REINSTATE_HOME``, for make and for looking around."""

import argparse
import sys

from estate import Estate, EstateError, Progress


def show(progress: Progress) -> None:
    """One line per piece of news, on standard error."""
    print(f"{progress.part:9}{progress.stage:9}{progress.seconds:7.1f} s  {progress.detail}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when done, 1 on an error of the estate, and for ``status`` 3 when a part is not up."""
    parser = argparse.ArgumentParser(prog="python -m estate", description="The embedded PostgreSQL, n8n and Prefect.")
    parser.add_argument("command", choices=["up", "down", "status", "install"])
    chosen = parser.parse_args(arguments)
    estate = Estate()
    try:
        match chosen.command:
            case "up":
                found = estate.up(progress=show)
                print(
                    f"postgres {found.pg_host}:{found.pg_port}\nn8n      {found.n8n_url}\nprefect  {found.prefect_url}"
                )
                print(f"{found.total_s:.1f} s, of which {found.download_s:.1f} s download")
            case "down":
                estate.down(progress=show)
            case "install":
                print(f"{estate.install(progress=show):.1f} s download")
            case _:
                parts = estate.status()
                for part in parts:
                    print(f"{part.part:9}{part.state:10}{part.pid or '-':>8}  {part.address}")
                return 0 if all(part.state == "up" for part in parts) else 3
    except EstateError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
