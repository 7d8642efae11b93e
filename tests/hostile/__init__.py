"""Peers that break the protocol: a co-holder, a client, a server; and what happens to everybody else."""
