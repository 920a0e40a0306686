"""For all tests: Ctrl-C means what it means at a terminal."""

import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every command under test.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
