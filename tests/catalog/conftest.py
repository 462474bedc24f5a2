"""A catalogue of one shop, as YAML text to be broken in tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

SHOP = """\
apps:
  - key: shop
    title: Shop
    owner: ada
    deputy: grace
    platform: {kind: fake, url: "env:SHOP_URL", api_key: "env:SHOP_KEY"}
    database: {installer: "env:SHOP_I", capturer: "env:SHOP_C", recoverer: "env:SHOP_R"}
    objectives: {rto_s: 60, rpo_s: 60}
    workflows:
      - key: intake
        name: Order intake
        owner: ada
        deputy: grace
        role: wf_intake
        trigger: {kind: webhook, event_key: body.id}
        writes: [shop.orders, shop.items.qty]
        downstream: [payment]
        canary: {event: canary/intake.json, expect: SELECT 1 WHERE false}
        steps:
          - {name: write order, inverse: reversible}
          - {name: send mail, inverse: irreversible}
      - key: payment
        name: Payment
        owner: ada
        deputy: grace
        role: wf_payment
        trigger: {kind: webhook}
        reads: [shop.orders.total]
        writes: [shop.orders.status]
        steps:
          - {name: charge, inverse: compensable, manual: refund it}
    tables:
      - name: shop.orders
        event_time: placed_at
      - name: shop.items
        references:
          - {columns: [order_id], table: shop.orders, to: [id]}
    detectors:
      - {key: twice, kind: duplicates, table: shop.orders, columns: [ref]}
    resume_order: [[intake], [payment]]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the shop's catalogue with replacements ``old, new, old, new...``; returns its folder."""

    def _write(*swaps: str, text: str = SHOP) -> Path:
        for old, new in zip(swaps[::2], swaps[1::2], strict=True):
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / "catalog.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "canary").mkdir(exist_ok=True)
        (tmp_path / "canary" / "intake.json").write_text("{}")
        return tmp_path

    return _write
