"""The version, which no other module has to import the package for."""

__version__ = "0.1.0"
