"""Several machines on one: `make test-cluster`."""
