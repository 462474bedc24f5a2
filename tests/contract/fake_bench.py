"""The in-memory platform under the contract suite, whole or playing one that can do less."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from platforms.base import Capabilities, CredentialState, Platform, RunState
from platforms.fake import EntryClosed, FakePlatform, Suspend
from tests.contract.bench import ECHO, QUERY, SHOP, fresh
from tests.contract.n8n_bench import N8nForm


class FakeBench(N8nForm):
    """Its workflows are in n8n's form; :meth:`play` does what they say."""

    secret = "hush-in-memory"  # noqa: S105 - no secret of anybody

    def __init__(self, capabilities: Capabilities | None = None) -> None:
        self.platform: Platform
        self.fake = FakePlatform(self.play, publish_delay_s=0.03, pause_delay_s=0.06, capabilities=capabilities)
        self.platform = self.fake
        self.seen: list[tuple[str, str]] = []

    def play(self, content: Mapping[str, Any], event: Mapping[str, Any], run_id: str) -> Mapping[str, Any]:
        def echo() -> Mapping[str, Any]:
            code = next(n["parameters"]["jsCode"] for n in content["nodes"] if n["name"] == ECHO)
            tag = code.partition("tag: '")[2].partition("'")[0]
            if event["body"].get("fail") == tag:
                raise ValueError("refused on purpose")
            if self.fake.alive(run_id):
                self.seen.append((str(event["body"].get("mark")), tag))
            seen = {"body": event["body"], "query": event.get("query"), "shop": event["headers"].get("x-shop")}
            return {ECHO: [{"tag": tag, **seen}]}

        calls = [n["parameters"]["workflowId"]["value"] for n in content["nodes"] if n["name"] == "Call"]
        if calls:
            called = self.fake.call(calls[0], event)
            if called.state is not RunState.SUCCESS:
                raise ValueError(f"its run {called.id} of {calls[0]} failed")
            return {"Call": [{"run": called.id}]}
        waits = [n["parameters"]["amount"] for n in content["nodes"] if n["name"] == "Wait"]
        if waits and waits[0] > 60:
            raise Suspend(echo)
        time.sleep(sum(waits))
        return echo()

    def create(self, definition: Mapping[str, Any]) -> str:
        return self.fake.add(definition)

    def delete(self, workflow_id: str) -> None:
        self.fake.delete(workflow_id)

    def call(self, workflow_id: str, body: Mapping[str, Any]) -> bool:
        try:
            self.fake.start(workflow_id, {"body": body, "headers": {"x-shop": SHOP}, "query": dict(QUERY)})
        except EntryClosed:
            return False
        return True

    def effects(self, mark: str) -> list[str]:
        return [tag for seen, tag in self.seen if seen == mark]

    def another_process(self) -> Platform:
        return self.fake

    def credential(self, name: str) -> str | None:
        return self.fake.add_credential(fresh("credential"), name, kind="postgres")

    def change_credential(self, credential_id: str) -> None:
        self.fake.set_credential(credential_id, CredentialState.VALID)

    def break_credential(self, credential_id: str) -> None:
        self.fake.set_credential(credential_id, CredentialState.INVALID)

    def lock_credential(self, credential_id: str) -> None:
        self.fake.set_credential(credential_id, CredentialState.UNREADABLE)

    def remove_credential(self, credential_id: str) -> None:
        del self.fake.vault[credential_id]

    def close(self) -> None:
        self.platform.close()


@contextmanager
def opened(capabilities: Capabilities | None = None) -> Iterator[FakeBench]:
    bench = FakeBench(capabilities)
    try:
        yield bench
    finally:
        bench.close()
