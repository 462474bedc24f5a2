"""Private copies of a tab: what is built, and how they are found again. Pure. One kind replays events, the other one is
called by the first while the tab itself is paused: that one has no desk, only its links.

The copy that replays is a tab of its own. What starts the original (HTTP nodes, timers, subscriptions) is left out; in
its place stands a *desk*, a function node behind an unguessable address, which emits the original event to where the
trigger was wired. Every output of the copied nodes is wired to the desk too, and so are completed messages and errors:
by them the desk knows when a run has ended, and writes it down in a context store.

Nodes of the copy have new ids; config nodes and subflows are the live ones where these are as the version wants them,
else copies. Node-RED has credentials by node id and never gives them out, so a node that has its own cannot be copied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from platforms.base import (
    EVENT_HEADER,
    RUN_HEADER,
    Definition,
    Permanent,
    Run,
    RunDetail,
    RunState,
    Version,
)
from platforms.node_red_client import Flows
from platforms.node_red_data import PREFIX, is_flow_node, replaced
from platforms.node_red_outline import labels
from platforms.node_red_secrets import put_back, taken_out

DESK = "reinstate desk"
REFUSED_HEADER = "x-reinstate-refused"
STORE = "reinstate"
"""Name of the context store in settings.js that keeps what was sent beyond a restart of Node-RED."""
LISTENERS = frozenset(("catch", "status", "complete", "link in"))
"""Nodes that nothing is wired to, and that start nothing by themselves."""
SOURCES = frozenset(
    ("http in", "inject", "mqtt in", "websocket in", "tcp in", "udp in", "watch", "postgrestor-listener")
)
"""Nodes that start runs by themselves even when something is wired to them."""
CORE = frozenset(
    (
        *(
            "function",
            "switch",
            "change",
            "range",
            "template",
            "delay",
            "trigger",
            "exec",
            "rbe",
            "debug",
            "http response",
        ),
        *(
            "http request",
            "mqtt out",
            "websocket out",
            "tcp out",
            "tcp request",
            "udp out",
            "csv",
            "html",
            "json",
            "xml",
        ),
        *("yaml", "split", "join", "sort", "batch", "file", "file in", "link out", "link call", "inject"),
    )
)
"""Types that tell Node-RED when they are done with a message."""
QUIET = frozenset(("comment", "group"))


def copy_id(version: Version) -> str:
    """The tab of the copy: the same for the same source and content, so that it is found after a kill."""
    return _hex("entry", version.workflow_id, version.hash)


def callee_id(version: Version) -> str:
    """The same of a copy that is called."""
    return _hex("callee", version.workflow_id, version.hash)


def address(token: str) -> str:
    """The path of the private address."""
    return f"/reinstate-{token}"


def token_of(flows: Flows, entry_id: str) -> str | None:
    """The secret part of an open copy's address, read back from its nodes; ``None`` for what is no copy."""
    for node in flows:
        if node.get("z") == entry_id and node.get("type") == "http in" and node.get("name") == DESK:
            return str(node.get("url", "")).removeprefix(address(""))
    return None


def remembers(flows: Flows, entry_id: str) -> bool:
    """Whether an open copy writes down what it was sent beyond a restart of Node-RED."""
    desks = [n for n in flows if n.get("z") == entry_id and n.get("type") == "function" and n.get("name") == DESK]
    return any(f'"store": {json.dumps(STORE)}' in str(desk.get("func")) for desk in desks)


def is_same(flows: Flows, entry_id: str, wanted: Flows) -> bool:
    """Whether an open copy still is as it was made."""
    present = {str(node["id"]): node for node in flows if node["id"] == entry_id or node.get("z") == entry_id}
    built = {str(node["id"]): node for node in wanted if node["id"] == entry_id or node.get("z") == entry_id}
    return present == built


def triggers_of(definition: Definition) -> list[Mapping[str, Any]]:
    """The nodes of the tab that start runs: known ones, and those of unknown types that nothing is wired to."""
    return _starting(definition["nodes"])


def sources(flows: Flows, tab_id: str) -> list[Mapping[str, Any]]:
    """The same of a tab as it is deployed."""
    return _starting([node for node in flows if node.get("z") == tab_id])


def _starting(all_nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    nodes = [node for node in all_nodes if is_flow_node(node) and not node.get("d")]
    wired = {target for node in nodes for port in node.get("wires") or () for target in port}
    return [
        node
        for node in nodes
        if node.get("type") in SOURCES
        or (
            node["id"] not in wired
            and node.get("type") not in CORE | LISTENERS | QUIET
            and any(node.get("wires") or ())
        )
    ]


def private_copy(version: Version, flows: Flows, token: str, *, durable: bool) -> Flows:
    """The tab of the copy and everything on it, and copies of the shared nodes that are different live."""
    triggers = triggers_of(version.definition)
    if not triggers:
        raise Permanent(f"workflow {version.workflow_id}: nothing on the tab starts it, so there is no event to replay")
    entry_id = copy_id(version)
    others, own, ids = _copied(version, flows, entry_id)
    recorded = _recorded(entry_id, own, version=version, ids=ids, triggers=triggers, token=token, durable=durable)
    return [*others, *recorded]


def private_callee(version: Version, flows: Flows) -> Flows:
    """The tab of a copy that is called: nothing but links leads into it."""
    others, own, _ = _copied(version, flows, callee_id(version))
    return [*others, *own]


def called_as(version: Version) -> dict[str, str]:
    """The ways into a copy that is called, by those into its source."""
    nodes = version.definition["nodes"]
    ways = [str(node["id"]) for node in nodes if node.get("type") == "link in" and not node.get("d")]
    return {way: _hex(callee_id(version), way) for way in ways}


def _copied(version: Version, flows: Flows, entry_id: str) -> tuple[Flows, Flows, dict[str, str]]:
    """Shared nodes that are copied with the tab itself, the nodes on it but for its triggers, and everything's new
    ids."""
    definition = version.definition
    left_out = {str(node["id"]) for node in triggers_of(definition)}
    by_id = {str(node["id"]): node for node in flows}
    ids = {str(node["id"]): _hex(entry_id, str(node["id"])) for node in definition["nodes"]}
    shared = _changed(definition, by_id)
    ids |= {str(node["id"]): _hex(entry_id, str(node["id"])) for node in shared}
    copied = [node for node in definition["nodes"] if str(node["id"]) not in left_out and node.get("type") != "comment"]
    own = [{**_copy(node, ids, by_id), "z": entry_id} for node in copied]
    foreign = [{**_copy(node, ids, by_id), "reinstate": entry_id} for node in shared]
    for node in foreign:
        if node["type"] in SOURCES:
            node["d"] = True
    for node in own:
        if node.get("type") == "group":
            node["nodes"] = [n for n in node.get("nodes") or () if n in {o["id"] for o in own}]
    tab = {
        "id": entry_id,
        "type": "tab",
        "label": f"{PREFIX}{definition['name']}",
        "disabled": False,
        "info": f"Made by Reinstate to replay events of {version.workflow_id} through {version.hash}; it removes it.",
        "env": put_back(list(definition.get("env") or []), by_id.get(version.workflow_id, {}).get("env")),
    }
    return [*foreign, tab], own, ids


def payload(event: Mapping[str, Any], key: str, run_id: str) -> dict[str, Any]:
    """What the private address takes: ``event`` as run ``run_id``, whose id the nodes find among the headers where the
    ingress puts it. A hand-written call may leave out parts."""
    emitted = {part: value for part, value in event.items() if part != "trigger"}
    if "body" in emitted or "headers" in emitted:
        headers = emitted.get("headers") or {}
        kept = {n.lower(): v for n, v in headers.items()} if isinstance(headers, Mapping) else {}
        emitted = {
            "body": {},
            "query": {},
            "params": {},
            **emitted,
            "headers": {**kept, EVENT_HEADER: key, RUN_HEADER: run_id},
        }
    return {"id": run_id.rpartition("-")[2], "key": key, "trigger": event.get("trigger"), "event": emitted}


def run_of(kept: Mapping[str, Any], entry_id: str) -> Run:
    """A run as the desk wrote it down."""
    ended = kept.get("ended")
    state = RunState(str(kept["state"]))
    stopped = datetime.fromisoformat(ended) if ended else None
    started = datetime.fromisoformat(str(kept["started"]))
    return Run(
        id=f"{entry_id}-{kept['id']}",
        workflow_id=entry_id,
        state=state,
        started_at=started,
        stopped_at=stopped if ended or state.in_flight else started,
        version_hash=kept.get("version"),
    )


def detail_of(kept: Mapping[str, Any], entry_id: str) -> RunDetail:
    event = dict(kept.get("event") or {})
    headers = {**(event.get("headers") or {}), EVENT_HEADER: kept["key"]}
    return RunDetail(
        run=run_of(kept, entry_id),
        event={**event, "headers": headers, "trigger": kept.get("trigger")},
        outputs=kept.get("outputs") or {},
        error=kept.get("error"),
        status=kept.get("status"),
    )


def _recorded(
    entry_id: str,
    own: Flows,
    *,
    version: Version,
    ids: Mapping[str, str],
    triggers: list[Mapping[str, Any]],
    token: str,
    durable: bool,
) -> Flows:
    """The nodes of the copy with the desk and what it hears by."""
    called = labels(version.definition)
    names = {ids[node_id]: name for node_id, name in called.items() if node_id in ids}
    alive = {str(n["id"]): n for n in own if is_flow_node(n) and not n.get("d")}
    starts = {called[str(t["id"])]: t for t in triggers}
    desk_id = _hex(entry_id, DESK)
    made: Flows = []

    def add(what: str, kind: str, **fields: Any) -> str:
        node_id = _hex(entry_id, DESK, what)
        made.append({"id": node_id, "type": kind, "z": entry_id, "name": DESK, "x": 0, "y": 0, **fields})
        return node_id

    def marked(label: str) -> str:
        rule = {"t": "set", "p": "reinstate", "pt": "msg", "to": label, "tot": "str"}
        return add(f"mark {label}", "change", rules=[rule], wires=[[desk_id]])

    def heard(targets: list[str]) -> list[str]:
        """Targets whose end can be waited for."""
        return [t for t in targets if t in alive and (alive[t]["type"] in CORE or any(alive[t].get("wires") or ()))]

    taps: dict[str, Any] = {}
    for node in [n for n in alive.values() if n["type"] not in ("link out", "debug", "status", "complete")]:
        for port, targets in enumerate(node.get("wires") or ()):
            label = f"{node['id']} {port}"
            catches = node["type"] == "catch"
            taps[label] = {"id": node["id"], "name": names[str(node["id"])], "targets": heard(targets)}
            taps[label] |= {"catches": True} if catches else {}
            node["wires"][port] = [*targets, marked(label)]
    plan = {
        "version": version.hash,
        "store": STORE if durable else None,
        "ports": list(starts),
        "first": next((n for n, t in starts.items() if t["type"] == "http in"), next(iter(starts))),
        "triggers": {
            name: {
                "method": str(t.get("method", "get")).upper() if t["type"] == "http in" else None,
                "targets": heard([ids[target] for port in t["wires"] for target in port if target in ids]),
            }
            for name, t in starts.items()
        },
        "taps": taps,
        "silent": {i: True for i, node in alive.items() if node["type"] not in CORE},
    }
    scope = list(alive)
    add("complete", "complete", scope=scope, uncaught=False, wires=[[marked("complete")]])
    add("catch", "catch", scope=scope, uncaught=True, wires=[[marked("catch")]])
    add("enter", "http in", url=address(token), method="post", upload=False, wires=[[marked("enter")]])
    add("list", "http in", url=address(token), method="get", upload=False, wires=[[marked("list")]])
    made.append(
        {
            "id": desk_id,
            "type": "function",
            "z": entry_id,
            "name": DESK,
            "x": 0,
            "y": 0,
            "func": _code(plan),
            "outputs": len(starts),
            "timeout": 0,
            "noerr": 0,
            "initialize": "",
            "finalize": "",
            "libs": [],
            "wires": [[ids[i] for port in t["wires"] for i in port if ids.get(i) in alive] for t in starts.values()],
        }
    )
    return [*own, *made]


def _changed(definition: Definition, by_id: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Config nodes and subflows (whole) that are not live as the definition has them or start runs by themselves, and
    what leads to them."""

    def differs(node: Mapping[str, Any]) -> bool:
        return bool(taken_out(by_id.get(str(node["id"]))) != node)

    shared = [*(definition.get("configs") or ()), *(definition.get("subflows") or ())]
    changed = {str(node["z"] if node.get("z") else node["id"]) for node in shared if differs(node)}
    changed |= {
        str(node["z"]) for node in shared if node.get("type") in SOURCES and node.get("z") and not node.get("d")
    }
    inside = {str(node["id"]) for node in shared if node.get("type") == "subflow"}
    for other in by_id.values():
        if other.get("z") in inside and not any(str(n["id"]) == other["id"] for n in shared):
            changed.add(str(other["z"]))
    while True:
        before = len(changed)
        for node in shared:
            if replaced(dict(node), dict.fromkeys(changed, "")) != dict(node):
                changed.add(str(node["z"] if node.get("z") else node["id"]))
        if len(changed) == before:
            return [node for node in shared if str(node["id"]) in changed or node.get("z") in changed]


def _copy(node: Mapping[str, Any], ids: Mapping[str, str], by_id: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A node under its new id, with the secrets that the live one has, and links to the copies."""
    copied: dict[str, Any] = replaced(put_back(dict(node), by_id.get(str(node["id"]))), ids)
    if copied.get("type") == "link in":
        copied["links"] = [link for link in copied.get("links") or () if link in ids.values()]
    return copied


def _code(plan: Mapping[str, Any]) -> str:
    text = Path(__file__).with_name("node_red_desk.js").read_text(encoding="utf-8")
    return text.replace("const PLAN = {};", f"const PLAN = {json.dumps(plan, ensure_ascii=False)};", 1)


def _hex(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
