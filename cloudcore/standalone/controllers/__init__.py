"""The controllers of the control plane in the box.  Each decides with plain functions and writes through verbs.py."""
