"""The ledger: the append-only, hash-chained record of everything decided and done.

Importing it is cheap; SQLAlchemy is loaded when a ledger is opened.
"""

from ledger.ledger import Ledger

__all__ = ["Ledger"]
