"""Ostiary: the policy-enforcing gateway between AI agents and their tools."""
