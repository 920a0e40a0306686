"""The report of one run: a single HTML file that needs no network, made from what the run left behind."""
