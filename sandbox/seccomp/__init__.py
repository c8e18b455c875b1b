"""The system call filter: ``policy.toml`` says what is allowed, ``ARCH.bpf`` is the program made from it."""
