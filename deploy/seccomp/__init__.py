"""Makes the sandbox's system call filters from their policy; run when the policy changes."""
