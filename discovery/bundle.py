"""Everything that discovery hands over, as texts by file name. Pure: writing them is the command's business."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from discovery import roles, tagging
from discovery.draft import Draft
from discovery.look import Seen
from discovery.names import dotted, literal, quoted
from discovery.tagging import Edit
from snapshots import roles as least

ROLES, TAGS, CHECKS = "roles.sql", "run-tags.md", "checks"


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnRoles:
    """Database roles of Reinstate; ``owner`` is the one that owns the app's tables."""

    installer: str
    capturer: str
    recoverer: str
    owner: str

    @property
    def all(self) -> tuple[str, str, str]:
        return self.installer, self.capturer, self.recoverer


def owner_of(seen: Seen, installer: str) -> str:
    """The role that owns most of the app's tables; ``installer`` where only superusers own them, since nobody is to
    become a member of a superuser."""
    owners = [o for t in seen.tables if not _super(seen, o := seen.database.tables[t].owner)]
    return max(sorted(set(owners)), key=owners.count) if owners else installer


def _super(seen: Seen, name: str) -> bool:
    role = seen.database.role(name)
    return role is not None and role.superuser


def _ownership(seen: Seen, own: OwnRoles) -> list[str]:
    """What the installer needs beside the membership in ``own.owner``: other owners, and tables of superusers."""
    lines: list[str] = []
    for table in seen.tables:
        owner = seen.database.tables[table].owner
        if _super(seen, owner):
            lines.append(f"ALTER TABLE {dotted(table)} OWNER TO {quoted(own.installer)};")
        elif owner not in (own.owner, own.installer):
            lines.append(f"GRANT {quoted(owner)} TO {quoted(own.installer)};")
    if not lines:
        return []
    head = "-- Only a table's owner may journal it. Superusers keep all their rights to a table that is given away."
    return ["", head, *dict.fromkeys(lines)]


def suites(draft: Draft) -> dict[str, str]:
    """The suites, below ``checks/``."""
    return {
        f"{CHECKS}/{name}": json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in draft.suites.items()
    }


def roles_sql(draft: Draft, seen: Seen, own: OwnRoles, verifiers: Mapping[str, str]) -> str:
    """What an administrator runs once: the roles of Reinstate, one role for each workflow with what it needs and no
    more, and passwords (by role, as the server stores them) for roles that are new."""
    proposed = {key: guess for key, guess in draft.roles.items() if not guess.exists}
    text = least.sql(
        database=seen.database.name,
        tables=list(seen.tables),
        installer=own.installer,
        capturer=own.capturer,
        recoverer=own.recoverer,
        owner=own.owner,
        workflow_roles=[g.role for g in proposed.values()],
    )
    lines = [text.rstrip(), *_ownership(seen, own)]
    by_key = {draft.keys[u.facts.id]: u for u in (*seen.uses, *seen.others) if u.facts.id in draft.keys}
    for key, guess in proposed.items():
        use = by_key[key]
        lines += ["", f"-- Workflow {use.facts.name}: give it a credential that logs in as {guess.role}."]
        lines.append(f"GRANT CONNECT ON DATABASE {quoted(seen.database.name)} TO {quoted(guess.role)};")
        lines += roles.grants(use, guess.role, seen.database)
    if verifiers:
        lines += ["", "-- Passwords of new roles, as the server stores them; the passwords themselves are not in here."]
        lines += [f"ALTER ROLE {quoted(role)} PASSWORD {literal(v)};" for role, v in sorted(verifiers.items())]
    return "\n".join(lines) + "\n"


def edits(seen: Seen) -> tuple[Edit, ...]:
    """Where the run's name is missing, by workflow and node."""
    return tuple(e for use in seen.uses for e in tagging.edits(use, seen.platform.kind))


def tags_page(found: tuple[Edit, ...]) -> str:
    """The edits as a page to work through."""
    lines = [
        "# Run tags",
        "",
        "With these statements the journal knows which run wrote what; without them it is inferred from role and time. "
        "Paste each into its node, as it stands.",
    ]
    for edit in found:
        lines += ["", f"## {edit.workflow}: {edit.node}", ""]
        if edit.after is None:
            lines.append(f"By hand: {edit.why}.")
            if edit.before:
                lines += ["", *_fenced(edit.before)]
        else:
            lines += _fenced(edit.after)
    return "\n".join(lines) + "\n"


def _fenced(text: str) -> list[str]:
    return ["```sql", text.rstrip(), "```"]
