"""The report of an incident, from the ledger: as one HTML file (``render``), as Markdown (``markdown``)."""
