"""Torch networks. Importing this package imports no torch; its modules do."""
