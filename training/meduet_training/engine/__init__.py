"""The training loop that every task shares: steps, checkpoints, resuming, planning. It knows no task."""
