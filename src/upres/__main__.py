"""``python -m upres``."""

from upres.cli.app import main

if __name__ == "__main__":
    main()
