"""Describes and measures hardware: processors, accelerators, memory, rates."""
