"""perfkit turns "it is slow" into one file that says why and what to do."""

__version__ = "0.1.0"
