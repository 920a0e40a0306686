"""One run on this machine: binding to earlier runs, progress, and what it leaves."""
