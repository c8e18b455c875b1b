"""``ostiary upstream add``: all files or none, nothing fetched but the document, hostile ones refused."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.root import ostiary
from gateway.core.tool import EffectClass
from gateway.settings import catalogue
from gateway.settings.file import load
from tests.client_desk import Desk, furnished

SHOP = Path(__file__).parents[1] / "fixtures" / "openapi" / "shop.json"
CONFIG = """\
# mine
catalogue = [ # what I say
  "own.toml",
]
state = "state"

[credentials.shop]
env = "SHOP_TOKEN"

[upstreams.erp]
kind = "sql"
database = "erp.sqlite"
"""
OWN = """\
[[tool]]
server = "erp"
name = "orders"
effect = "read"
description = "Orders."
input_schema = { type = "object", additionalProperties = false }
[tool.sql]
statement = "SELECT 1"
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder with no gateway yet."""
    return furnished(tmp_path)


def added(desk: Desk, *words: str, name: str = "shop", source: str = str(SHOP)) -> Result:
    """Add an API without being asked."""
    state = [] if "--config" in words else ["--state", str(desk.state)]
    return CliRunner().invoke(ostiary, ["upstream", "add", name, "--openapi", source, "--yes", *words, *state])


def configured(desk: Desk) -> Path:
    """A gateway with a configuration and a catalogue of its own."""
    desk.file("own.toml", OWN)
    return desk.file("gateway.toml", CONFIG)


def files(folder: Path) -> dict[str, bytes]:
    """What lies in the folder itself."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_gateway_of_its_own_loads_what_was_written(desk: Desk) -> None:
    """Comments and lines of the settings stay; upstream, credential and tools are there, effects and all."""
    config = configured(desk)
    done = added(desk, "--config", str(config), "--credential", "shop")
    assert done.exit_code == 0, done.output
    text = config.read_text("utf-8")
    assert text.startswith('# mine\ncatalogue = ["shop.catalogue.json",  # what I say\n  "own.toml",\n]\n')
    assert CONFIG.partition("]\n")[2] in text
    settings = load(config)
    entries = catalogue.load(settings.catalogue)
    tools = {tool.fqn: tool for tool in catalogue.declared(entries, settings)}
    assert tools["shop.getOrder"].effect is EffectClass.READ
    assert tools["shop.orders_remove"].effect is EffectClass.DESTRUCTIVE
    assert tools["shop.placeOrder"].credential == "shop"
    assert "erp.orders" in tools
    [backup] = (desk.home.parent / "state" / "clients").glob("*upstream*/*gateway.toml")
    assert backup.read_text("utf-8") == CONFIG


def test_a_development_gateway_needs_no_file_at_all(desk: Desk) -> None:
    """Settings are made; the list of catalogues stands above all tables."""
    assert added(desk).exit_code == 0
    assert (desk.settings["catalogue"], desk.settings["upstreams"]["shop"]["kind"]) == (["shop.catalogue.json"], "http")


def test_doing_it_twice_changes_nothing_and_what_people_changed_is_kept(desk: Desk) -> None:
    """A catalogue that says something else is replaced only by word, and then a copy is kept."""
    assert added(desk).exit_code == 0
    before = files(desk.state)
    again = added(desk, "--json")
    assert json.loads(again.output.splitlines()[-1])["done"] is False
    assert files(desk.state) == before
    path = desk.state / "shop.catalogue.json"
    changed = path.read_text("utf-8").replace('"write"', '"money"')
    path.write_text(changed, "utf-8")
    refused = added(desk)
    assert refused.exit_code == 2
    assert "--replace" in refused.output
    assert path.read_text("utf-8") == changed
    assert added(desk, "--replace").exit_code == 0
    assert files(desk.state) == before
    copies = [one.read_text("utf-8") for one in (desk.state / "clients").glob("*/*shop.catalogue.json")]
    assert copies == [changed]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--select", "nothing*"), "no operation is selected"),
        (("--credential", "gone"), "gone"),
        (("--base-url", "https://{x}.example.org"), "its address cannot be used"),
        (("--base-url", "nonsense"), "its address cannot be used"),
        (("--effect", "x=read-only"), "PATTERN=CLASS"),
        (("--allow-network", "10.0.0.1/8"), "host bits set"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(desk: Desk, words: tuple[str, ...], said: str) -> None:
    """Wishes that fit nothing, credentials that are not there, addresses that are none."""
    config = configured(desk)
    before = files(desk.home.parent)
    refused = added(desk, *words, "--config", str(config))
    assert refused.exit_code == 2, refused.output
    assert said in refused.output
    assert files(desk.home.parent) == before


@pytest.mark.parametrize("name", ["Shop", "../shop", "shop/../../x", "a__b", "gateway", "", "x" * 40])
def test_a_name_that_is_none_is_refused(desk: Desk, name: str) -> None:
    """A file is named after it."""
    refused = added(desk, name=name)
    assert refused.exit_code == 2
    assert "cannot name an upstream" in refused.output
    assert not desk.state.exists()


def test_a_name_that_is_taken_is_refused(desk: Desk) -> None:
    """By another upstream, or by a tool that another catalogue declares."""
    config = configured(desk)
    refused = added(desk, "--config", str(config), name="erp")
    assert refused.exit_code == 2
    assert "says something else" in refused.output
    assert added(desk, "--config", str(config)).exit_code == 0
    own = json.loads((desk.home.parent / "shop.catalogue.json").read_text("utf-8"))["tool"][0]
    desk.file("own.json", json.dumps({"tool": [own]}))
    config.write_text(config.read_text("utf-8").replace('"own.toml"', '"own.json"'), "utf-8")
    refused = added(desk, "--config", str(config), "--replace")
    assert refused.exit_code == 2
    assert own["name"] in refused.output


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("openapi: 3.0.0\nx: &x [1, 1]\ny: [*x, *x]\n", "json"),
        ('{"openapi": "3.0.0", ' * 3, "json"),
        ('{"a":' * 200_000, "too_deep"),
        ('{"openapi": "3.0.0", "x": "' + "y" * (9 * 1024 * 1024) + '"}', "too_large"),
    ],
)
def test_hostile_files_are_refused(desk: Desk, text: str, rule: str) -> None:
    """YAML aliases, broken JSON, depth, length: one clear line with file, place and rule."""
    path = desk.file("hostile.json", text)
    refused = added(desk, "--json", source=str(path))
    assert refused.exit_code == 2
    problem = json.loads(refused.output.splitlines()[-1])["problems"][0]
    assert (problem["pointer"], problem["rule"]) == ("#", rule)
    assert f"{path}: #: {rule}:" in refused.output
    assert not desk.state.exists()


def test_a_file_of_fifty_mebibytes_is_not_even_read(desk: Desk) -> None:
    """And neither is one that never ends."""
    path = desk.home / "huge.json"
    with path.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    for source in (str(path), "/dev/zero"):
        refused = added(desk, source=source)
        assert refused.exit_code == 2
        assert "no regular file of at most 16 MiB" in refused.output


def test_suspicious_words_are_shown_or_left_to_people(desk: Desk) -> None:
    """As the settings say of tools that nobody has read yet."""
    tickets = str(SHOP.with_name("tickets.json"))
    base = ("--base-url", "https://tickets.example.org")
    done = added(desk, *base, name="tickets", source=tickets)
    assert "instruct.ignore, unicode.bidi" in done.output
    assert "\u202e" not in done.output
    config = desk.file("gateway.toml", 'state = "state"\n[governance]\nsuspicious = "hold"\n')
    refused = added(desk, *base, "--config", str(config), name="tickets", source=tickets)
    assert refused.exit_code == 2
    assert "which your settings leave to people" in refused.output
    assert (
        added(desk, *base, "--leave", "ticket", "--config", str(config), name="tickets", source=tickets).exit_code == 0
    )


class Web:
    """A web server that serves one document, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status, self.body = 200, SHOP.read_bytes()


@contextmanager
def web() -> Iterator[tuple[Web, str]]:
    """It, on loopback."""
    found = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            self.send_response(found.status)
            if found.status == 302:
                self.send_header("location", "/openapi.json")
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found, f"http://127.0.0.1:{server.server_address[1]}/spec/openapi.json"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_from_an_address_one_request_is_made(desk: Desk) -> None:
    """Only where the network was named; references are not followed out of the document; redirects are not either."""
    with web() as (site, url):
        refused = added(desk, source=url)
        assert refused.exit_code == 2
        assert "may not be dialled (loopback)" in refused.output
        assert site.asked == []
        near = ("--allow-network", "127.0.0.0/8")
        assert added(desk, *near, "--dry-run", source=url).exit_code == 0
        assert site.asked == ["/spec/openapi.json"]
        document = json.loads(site.body)
        document["components"]["schemas"]["Money"] = {"$ref": "money.json#/Money"}
        site.body = json.dumps(document).encode()
        outside = added(desk, *near, source=url)
        assert "external_ref" in outside.output
        assert site.asked == ["/spec/openapi.json"] * 2
        site.status = 302
        moved = added(desk, *near, source=url)
        assert moved.exit_code == 1
        assert "status 302" in moved.output
        site.status, site.body = 200, b'{"x": "' + b"y" * (20 * 1024 * 1024)
        assert "too_large" in added(desk, *near, source=url).output
        assert site.asked == ["/spec/openapi.json"] * 4
    assert "cannot be fetched" in added(desk, *near, source=url).output
    assert not desk.state.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://api.example.org/openapi.json", "not fetched over http"),
        ("https://169.254.169.254/latest/meta-data", "may not be dialled (metadata)"),
        ("https://10.0.0.1/openapi.json", "may not be dialled (private)"),
        ("https://[::ffff:127.0.0.1]/o.json", "may not be dialled (embedded_v4)"),
        ("https://0x7f000001/o.json", "neither a host name nor an address"),
        ("https://u:p@api.example.org/o.json", "no user"),
        ("https://", "neither a host name"),
    ],
)
def test_addresses_that_are_not_dialled(desk: Desk, url: str, said: str) -> None:
    """In the clear, inside, of a cloud's metadata, or in one of the spellings that parsers disagree on."""
    refused = added(desk, source=url)
    assert refused.exit_code == 2, refused.output
    assert said in refused.output
