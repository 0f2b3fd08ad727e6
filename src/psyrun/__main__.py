"""``python -m psyrun`` is ``psy-doit``."""

from psyrun.program import main

if __name__ == "__main__":
    main()
