"""`python -m lpmangle`, and the console script."""

from lpmangle.system.light import signal

# While modules are being loaded there is nothing to clean up: Ctrl-C just ends the process, without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from lpmangle.cli import main

if __name__ == "__main__":
    main()
