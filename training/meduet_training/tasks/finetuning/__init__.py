"""Parts that all fine-tuning tasks share."""
