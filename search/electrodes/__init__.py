"""Electrodes: which hosts take up which ions, at what voltage, and how the host changes."""
