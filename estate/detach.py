"""Run as a script: start a command in its own session, record it in a file, print its pid and leave.

A process started through this one belongs to nobody: it outlives the caller, gets no signal meant for the caller's
terminal, and leaves no zombie behind. It is on record before it runs, so a caller that dies meanwhile loses nothing.
Used as ``python -I -S detach.py PID_FILE LOG UID GID COMMAND...`` (UID -1: keep the user).
"""

import json
import os
import sys


def start_ticks() -> int:
    """When this process started, in clock ticks since boot: field 22 of proc(5)'s stat."""
    with open("/proc/self/stat", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs more than all the rest
        return int(file.read().rpartition(")")[2].split()[19])


def main(arguments: list[str]) -> None:
    pid_file, log, uid, gid, command = *arguments[:2], int(arguments[2]), int(arguments[3]), arguments[4:]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        sys.exit(0 if os.read(told, 1) else 1)
    os.setsid()
    temporary = f"{pid_file}.{os.getpid()}"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"pid": os.getpid(), "start_ticks": start_ticks()}, file)
    os.replace(temporary, pid_file)  # noqa: PTH105
    os.write(tell, b".")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 1024)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    try:
        os.execvpe(command[0], command, os.environ)  # noqa: S606 - the point of this script
    except OSError as error:
        print(f"cannot run {command[0]}: {error}", file=sys.stderr, flush=True)
    os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
