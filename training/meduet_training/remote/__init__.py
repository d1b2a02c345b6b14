"""From a desktop to a server over SSH: start a pretraining there, follow it, fetch its model."""
