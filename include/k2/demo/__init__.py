"""`./k2 demo`: the platform in front of a user, one driver killed, and the proof that nothing was lost or doubled."""
