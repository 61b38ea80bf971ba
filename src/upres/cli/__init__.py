"""The command line: one file a command, wired in app.py, printing in output.py."""
