"""`reinstate up` keeps an ingress running for each app that has one."""

from __future__ import annotations

from pathlib import Path

from console.service.settings import Service, order_of_ending, parts


def test_an_app_with_an_ingress_gets_one(tmp_path: Path) -> None:
    service = Service(
        home=tmp_path,
        catalog=tmp_path / "apps",
        apps=("desk", "shop"),
        prefect_api_url="http://127.0.0.1:4200/api",
        auth="",
        pages_port=4300,
        ingresses=("shop",),
    )
    found = {p.name: p for p in parts(service)}
    assert found["ingress-shop"].command[-5:] == ["ingress", "--catalog", str(tmp_path / "apps"), "--app", "shop"]
    assert "ingress-desk" not in found
    first, then = order_of_ending(list(found))
    assert "ingress-shop" in then, "it takes events until those who send them back have ended"
    assert "watcher-shop" in first
