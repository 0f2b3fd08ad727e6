"""Models that the sample task files in ``psy-tasks`` run."""
