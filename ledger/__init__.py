"""The ledger: the append-only, hash-chained record of everything decided and done.

``from ledger.ledger import Ledger``; nothing is imported here, so that commands which need no ledger start fast.
"""
