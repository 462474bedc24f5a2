"""The operating-system user PostgreSQL runs as when we are root, and how it reaches its files.

PostgreSQL refuses to run as root. Our directories stay closed to others: on the way to the data directory the user
gets the right to pass (not to list) by an access-control entry; only where the file system has none, by mode o+x.
"""

import os
import pwd
import shutil
import stat
import struct
import subprocess
from pathlib import Path

from estate.errors import StartFailed

USER = "reinstate-pg"
PASS = 1
ACL = "system.posix_acl_access"
# Layout and tags of the extended attribute: Linux, include/uapi/linux/posix_acl_xattr.h and posix_acl.h.
VERSION, ENTRY = struct.pack("<I", 2), struct.Struct("<HHI")
OWNER, NAMED_USER, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
NOBODY_ID = 0xFFFFFFFF


def postgres_owner() -> tuple[int, int] | None:
    """(uid, gid) to run PostgreSQL as, None when we are not root and run it ourselves. Makes the user if needed."""
    if os.geteuid() != 0:
        return None
    entry = lookup()
    if entry is None:
        useradd = shutil.which("useradd") or "/usr/sbin/useradd"
        command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", USER]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            cause = answer.stderr.strip()
        except OSError as error:
            cause = str(error)
        entry = lookup()
        if entry is None:
            raise StartFailed(
                f"postgres cannot run as root and the system user {USER} could not be made ({cause}); "
                "make that user, or run reinstate as an ordinary user"
            )
    return entry.pw_uid, entry.pw_gid


def lookup() -> pwd.struct_passwd | None:
    """The user's entry, if it exists."""
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def let_pass(path: Path, uid: int) -> None:
    """Let ``uid`` pass through every directory above ``path``."""
    for directory in path.resolve().parents:
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & stat.S_IXOTH or directory.stat().st_uid == uid:
            continue
        try:
            os.setxattr(directory, ACL, with_entry(current_acl(directory), mode, uid))
        except OSError:
            directory.chmod(mode | stat.S_IXOTH)


def let_read(tree: Path) -> None:
    """Make an installed program readable for everybody, if a strict umask hid it when it was installed."""
    if stat.S_IMODE(tree.stat().st_mode) & 0o005 == 0o005:
        return
    for path in (tree, *tree.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | (mode & 0o500) >> 6)


def current_acl(directory: Path) -> list[tuple[int, int, int]]:
    """The directory's access-control entries as (tag, permissions, id); empty when it has only a mode."""
    try:
        raw = os.getxattr(directory, ACL)
    except OSError:
        return []
    return [ENTRY.unpack_from(raw, offset) for offset in range(len(VERSION), len(raw), ENTRY.size)]


def with_entry(entries: list[tuple[int, int, int]], mode: int, uid: int) -> bytes:
    """Entries (or the mode, when there are none) plus the right to pass for ``uid``; nobody else gains anything."""
    if not entries:
        entries = [
            (OWNER, mode >> 6 & 7, NOBODY_ID),
            (GROUP, mode >> 3 & 7, NOBODY_ID),
            (OTHER, mode & 7, NOBODY_ID),
        ]
    masks = [permissions for tag, permissions, _ in entries if tag == MASK]
    limit = masks[0] if masks else 7
    kept = [
        (tag, permissions if tag in (OWNER, OTHER) else permissions & limit, who)
        for tag, permissions, who in entries
        if tag != MASK and (tag, who) != (NAMED_USER, uid)
    ]
    kept.append((NAMED_USER, PASS, uid))
    needed = 0
    for tag, permissions, _ in kept:
        if tag not in (OWNER, OTHER):
            needed |= permissions
    kept.append((MASK, needed, NOBODY_ID))
    return VERSION + b"".join(ENTRY.pack(*entry) for entry in sorted(kept, key=lambda entry: (entry[0], entry[2])))
