"""What a machine can do: processors, accelerators, memory, measured rates."""
