"""What the trainings of segmenters and classifiers share."""
