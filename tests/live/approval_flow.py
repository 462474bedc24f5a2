"""The flow `recover` with the stand-ins in place. Loaded by Prefect in the process of each flow run, never by a test:
what it puts in place stays for the life of the process."""

from __future__ import annotations

import flows.recover
import recovery.context
from recovery import session
from tests.live import approval_stand_in

recovery.context.open_app = approval_stand_in.opened  # type: ignore[assignment]
session.open_app = approval_stand_in.opened  # type: ignore[assignment]
session.make = approval_stand_in.make
session.execute.run_step = approval_stand_in.step  # type: ignore[assignment]
recover = flows.recover.recover
