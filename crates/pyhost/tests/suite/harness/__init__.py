"""What the checks stand on: the wire, the server under test, and the list of checks.

Standard library only. The server under test imports parts of it too (`harness.app`), so nothing here does work at import.
"""
