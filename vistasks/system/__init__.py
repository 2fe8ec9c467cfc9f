"""The machine under the program: files written whole or not at all, devices, memory, processes."""
