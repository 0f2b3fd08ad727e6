"""``python -m psyrun`` is ``psy-doit``."""

from psyrun.cli import main

if __name__ == "__main__":
    main()
