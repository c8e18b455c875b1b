"""Starting a fixture server as a process of its own, and ending it for certain."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"


@contextmanager
def http_server(python: Path, script: str, *arguments: str) -> Iterator[str]:
    """Run ``tests/fixtures/SCRIPT``, which prints its port first; yields its MCP endpoint's URL."""
    command = [str(python), str(FIXTURES / script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()
