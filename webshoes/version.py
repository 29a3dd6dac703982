"""The version, in its one place."""

__version__ = '2.0.0'
