"""The browser view of a run: a small server on this machine, and the page that it serves."""
