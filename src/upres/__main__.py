"""``python -m upres``, and the console script."""

import gc
import sys


def main() -> None:
    """The command line; an interrupt while it is still being imported ends it like any other."""
    try:
        from upres.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("upres: interrupted; no unfinished result was left\n")
        sys.exit(130)
    finally:
        # Looking for cycles among all that torch has made takes the interpreter's end 0.7 s.
        gc.freeze()


if __name__ == "__main__":
    main()
