"""What every training here shares: schedules, averages of weights, folders of runs."""
