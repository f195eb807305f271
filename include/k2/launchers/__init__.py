"""Starting, inspecting and ending drivers. The host agent is the parent of every driver process of this machine."""
