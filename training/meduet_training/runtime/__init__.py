"""Runtime services that every training uses: processes, signals, locks, logs, progress."""
