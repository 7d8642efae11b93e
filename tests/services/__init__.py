"""Objects of L4's own protocols that a program serves, in this process and across processes."""
