"""Groundwork: foundation models of molecules and satellite rasters, on your own machine.

Importing this package is cheap: it pulls in neither torch nor the other rooms.
"""

__version__ = "0.1.0"
