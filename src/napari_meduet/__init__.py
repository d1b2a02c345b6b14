"""MeDUET: the content and the style of a scan, told apart. Importing this costs nothing."""

__version__ = "0.1.0"
