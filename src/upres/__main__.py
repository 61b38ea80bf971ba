"""``python -m upres``, and the console script."""

import sys


def main() -> None:
    """The command line; an interrupt while it is still being imported ends it like any other."""
    try:
        from upres.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("upres: interrupted; nothing half-written was left\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
