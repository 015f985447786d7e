"""A record as text or bytes. Pure: no I/O, no asyncio, nothing that waits."""
