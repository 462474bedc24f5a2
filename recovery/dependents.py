"""Which workflows are paused with others, and why: what the catalogue puts downstream of them, what writes as the same
database role (the fence would stop it half way), and what calls them as a sub-workflow (a call of a paused workflow
fails, and its caller has written half by then). All of it again for those.

Calls are read from definitions, live and saved, by id or by name. Callers that the catalogue does not hold have no role
of ours and cannot be paused here: `reinstate check` names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from catalog.models import App
from platforms.base import Outline, Platform, WorkflowInfo

THREADS = 8


def closure(app: App, keys: Iterable[str], calls: Mapping[str, frozenset[str]] | None = None) -> dict[str, str]:
    """``keys`` and everything that depends on them, each with the reason (empty for ``keys`` themselves). ``calls``
    are the workflows that each workflow calls. Pure."""
    why = dict.fromkeys(keys, "")
    todo = list(why)
    while todo:
        key = todo.pop()
        found = dict.fromkeys(app.workflow(key).downstream, f"downstream of {key}")
        found |= {w.key: f"calls {key}" for w in app.workflows if key in (calls or {}).get(w.key, ())}
        role = app.workflow(key).role
        found |= {w.key: f"writes as {role}, like {key}" for w in app.workflows if w.role == role}
        for other, reason in found.items():
            if other not in why:
                why[other] = reason
                todo.append(other)
    return why


def called_first(keys: Iterable[str], calls: Mapping[str, frozenset[str]]) -> list[str]:
    """``keys`` in their order, but what is called before its callers: a platform may refuse to publish a caller of
    what is not published. A circle is entered where it is met first. Pure."""
    wanted, placed = list(keys), dict[str, None]()

    def place(key: str, above: tuple[str, ...]) -> None:
        for other in (k for k in wanted if k in calls.get(key, frozenset()) and k not in (key, *above)):
            place(other, (key, *above))
        placed.setdefault(key)

    for key in wanted:
        place(key, ())
    return list(placed)


def called(outline: Outline, keys: Mapping[str, str]) -> frozenset[str]:
    """The workflows that a definition calls. ``keys`` gives the catalogue's key by id and by name. Pure."""
    names = (name for node in outline.nodes if not node.disabled for name in node.calls)
    return frozenset(keys[name] for name in names if name in keys)


def read_calls(
    app: App, platform: Platform, infos: Mapping[str, WorkflowInfo], *, of: Iterable[str]
) -> dict[str, frozenset[str]]:
    """The workflows that each workflow in ``of`` calls, in what is live or in what is saved. Raises what the platform
    raises."""
    keys = {info.id: key for key, info in infos.items()}
    keys |= {name: key for key, info in infos.items() for name in (info.name, app.workflow(key).name)}

    def read(key: str) -> frozenset[str]:
        info = infos[key]
        versions = [platform.draft_version(info.id)]
        if info.active and (live := platform.live_version(info.id)) is not None:
            versions.append(live)
        return frozenset().union(*(called(platform.outline(v.definition), keys) for v in versions))

    wanted = [key for key in of if key in infos]
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        return dict(zip(wanted, pool.map(read, wanted), strict=True))
