"""Run as a script: start a command in its own session, print its pid and leave.

A process started through this one belongs to nobody: it outlives the caller, gets no signal meant for the caller's
terminal, and leaves no zombie behind. Used as ``python -I -S detach.py LOG UID GID COMMAND...`` (UID -1: keep).
"""

import os
import sys


def main(arguments: list[str]) -> None:
    log, uid, gid, command = arguments[0], int(arguments[1]), int(arguments[2]), arguments[3:]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.setsid()
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        return
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
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
