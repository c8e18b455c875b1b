"""Outbound parts, one port each; none imports another."""
