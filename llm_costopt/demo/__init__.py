"""The demo: a request log, a loopback server that plays its answers back, and the table of what was saved."""
