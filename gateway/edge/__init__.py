"""Inbound surfaces: MCP, REST, operations. They end in the pipeline and import no adapter."""
