"""Typed models of what is declared (platform.yaml), where it runs (runtime.json) and what is observed.

Plain values: nothing here opens a connection. Every other package may import this one, and it imports none of them.
"""
