"""The embedded stack: everything that `./k2 up` runs on one machine, without Docker and without root."""
