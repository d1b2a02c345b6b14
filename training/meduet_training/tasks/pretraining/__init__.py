"""Pretraining of MeDUET and of the other pretexts."""
