"""``ostiary login``: whatever the issuer answers, a person gets a token that only they can read, or is told why not."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from gateway.cli import device, logins
from gateway.cli.screen import Failed, Misconfigured
from tests.gateways import ostiary


@dataclass
class Site:
    """A gateway's metadata and an issuer in one server; ``pages`` are answered by path, lists one after another."""

    url: str = ""
    pages: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """All is well, and the person confirms at once."""
        self.asked.clear()
        self.pages = {
            "/.well-known/oauth-protected-resource/mcp": {
                "resource": f"{self.url}/mcp",
                "authorization_servers": [self.url],
                "scopes_supported": ["runs", "tools"],
            },
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "device_authorization_endpoint": f"{self.url}/device",
                "token_endpoint": f"{self.url}/token",
            },
            "/device": {
                "device_code": "d",
                "user_code": "ABCD",
                "verification_uri": f"{self.url}/go",
                "interval": 0,
                "expires_in": 60,
            },
            "/token": [{"access_token": "a.b.c", "expires_in": 600}],
        }

    def page(self, path: str) -> Any:
        """The next answer."""
        page = self.pages.get(path)
        return page.pop(0) if isinstance(page, list) else page


@pytest.fixture
def site() -> Iterator[Site]:
    """On loopback."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = site.page(self.path)
            self.rfile.read(int(self.headers.get("content-length") or 0))
            site.asked.append(self.path)
            body = page if isinstance(page, bytes) else json.dumps(page).encode()
            self.send_response(404 if page is None else 400 if isinstance(page, dict) and "error" in page else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        site.reset()
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person without logins."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def wish(site: Site) -> device.Wish:
    """As the command would ask."""
    offered = device.offer(site.url)
    return device.Wish(offered.issuers[0], "cli", "tools", offered.resource)


def silent(*_: str) -> None:
    """Nobody looks."""


def test_waiting_and_slowing_down_end_in_a_token(site: Site) -> None:
    """The person takes a while."""
    site.pages["/token"] = [{"error": "authorization_pending"}] * 3 + site.pages["/token"]
    shown: list[tuple[str, str]] = []
    said = device.log_in(wish(site), lambda where, code: shown.append((where, code)))
    assert (said.token, said.lives_s) == ("a.b.c", 600.0)
    assert shown == [(f"{site.url}/go", "ABCD")]
    assert site.asked.count("/token") == 4


@pytest.mark.parametrize(
    ("path", "page", "words"),
    [
        ("/token", [{"error": "access_denied"}], "access_denied"),
        ("/token", [{"error": "expired_token"}], "expired_token"),
        ("/token", [{"token_type": "bearer"}], "something else"),
        ("/token", [b"<html>"], "no JSON object"),
        ("/token", [[]], "no JSON object"),
        ("/device", {"error": "invalid_client", "error_description": "who\u202e?"}, r"who\\u202e\?"),
        ("/device", {}, "refused"),
        ("/.well-known/openid-configuration", {"issuer": "https://other.test"}, "another issuer"),
        ("/.well-known/openid-configuration", None, "publishes no metadata"),
    ],
)
def test_what_goes_wrong_is_said(site: Site, path: str, page: Any, words: str) -> None:
    """In the issuer's words, made harmless; no token is kept."""
    site.pages[path] = page
    with pytest.raises(Failed, match=words):
        device.log_in(wish(site), silent)


def test_an_issuer_without_the_grant_and_a_gateway_without_issuers_say_so(site: Site) -> None:
    """With what else there is to do."""
    del site.pages["/.well-known/openid-configuration"]["device_authorization_endpoint"]
    with pytest.raises(Failed, match="no login for devices"):
        device.log_in(wish(site), silent)
    site.pages["/.well-known/oauth-protected-resource/mcp"] = None
    with pytest.raises(Failed, match="takes no tokens of other issuers"):
        device.offer(site.url)


def test_nothing_is_sent_where_it_can_be_read_on_the_way(site: Site) -> None:
    """An http address of another machine is refused before anything is sent there."""
    site.pages["/.well-known/openid-configuration"]["token_endpoint"] = "http://192.0.2.1/token"
    with pytest.raises(Failed, match="no https address"):
        device.log_in(wish(site), silent)
    with pytest.raises(Failed, match="no https address"):
        device.offer("http://192.0.2.1")


def test_nobody_there_is_said(home: Path) -> None:
    """Without a traceback."""
    done = ostiary("login", "--url", "http://127.0.0.1:9", XDG_CONFIG_HOME=str(home))
    assert (done.returncode, "cannot be reached" in done.stderr) == (1, True)


def test_one_of_several_issuers_must_be_named(site: Site) -> None:
    """They are listed."""
    site.pages["/.well-known/oauth-protected-resource/mcp"]["authorization_servers"].append("https://two.test")
    done = ostiary("login", "--url", site.url)
    assert (done.returncode, "two.test" in done.stderr) == (1, True)


def test_a_kept_token_is_used_until_it_ends_and_by_its_owner_alone(home: Path) -> None:
    """Each gateway has its own; what others could read is not used."""
    path = logins.keep("https://a.test/", "one", 600)
    logins.keep("https://b.test", "two", -1)
    assert (logins.token_for("https://A.test"), logins.token_for("https://c.test")) == ("one", None)
    with pytest.raises(Misconfigured, match="expired"):
        logins.token_for("https://b.test")
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    with pytest.raises(Misconfigured, match="read by others"):
        logins.token_for("https://a.test")
    path.write_text("no json")
    assert logins.token_for("https://a.test") is None
    assert home in path.parents


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(home: Path) -> None:
    """And the token is not lost silently."""
    home.chmod(0o500)
    with pytest.raises(Failed, match="cannot be written"):
        logins.keep("https://a.test", "one", 600)


@pytest.mark.parametrize("resource", ["https://bank.test/mcp", None, "", "http://127.0.0.1:1/mcp", "https://["])
def test_a_gateway_gets_no_token_for_another(site: Site, resource: str | None) -> None:
    """It could use it there: nobody is asked to log in, and the issuer hears nothing."""
    site.pages["/.well-known/oauth-protected-resource/mcp"]["resource"] = resource
    done = ostiary("login", "--url", site.url)
    assert (done.returncode, "asks for a token for" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    assert site.asked == ["/.well-known/oauth-protected-resource/mcp"]


def test_a_gateway_is_itself_however_its_address_is_spelt(site: Site) -> None:
    """A slash at the end is no other gateway."""
    assert device.offer(site.url + "/").resource == f"{site.url}/mcp"


@pytest.mark.parametrize(
    ("said", "lives_s"),
    [("600", 600), ("soon", 300), (None, 300), ([], 300), (-5, 0), (1e400, 604_800), (float("nan"), 300)],
)
def test_a_token_is_kept_whatever_is_said_of_its_life(site: Site, said: Any, lives_s: float) -> None:
    """Within bounds; where it makes no sense, as long as is usual."""
    site.pages["/token"] = [{"access_token": "a.b.c", "expires_in": said}]
    assert device.log_in(wish(site), silent).lives_s == lives_s


@pytest.mark.parametrize(("name", "said"), [("interval", -1), ("expires_in", "x"), ("expires_in", None)])
def test_times_of_a_login_that_make_no_sense_are_passed_over(site: Site, name: str, said: Any) -> None:
    """The person gets their token."""
    site.pages["/device"][name] = said
    assert device.log_in(wish(site), silent).token == "a.b.c"


@pytest.mark.parametrize("token", ["a b", "ä", "a\r\nx: y", "", 7, [], "x" * 8193])
def test_what_cannot_stand_in_a_header_is_no_token(site: Site, token: Any) -> None:
    """It is not kept."""
    site.pages["/token"] = [{"access_token": token}]
    with pytest.raises(Failed, match="no bearer token"):
        device.log_in(wish(site), silent)


@pytest.mark.parametrize(
    ("path", "member", "address"),
    [
        ("/device", "verification_uri", "javascript:alert(1)"),
        ("/device", "verification_uri", "file:///etc/passwd"),
        ("/device", "verification_uri_complete", "\x1b]8;;https://a.test"),
        ("/.well-known/openid-configuration", "token_endpoint", "https://["),
        ("/.well-known/openid-configuration", "device_authorization_endpoint", "https://a.test:x/\x07"),
        ("/.well-known/oauth-protected-resource/mcp", "authorization_servers", ["https://["]),
        ("/.well-known/oauth-protected-resource/mcp", "authorization_servers", ["https://a\x07b.test"]),
    ],
)
def test_nobody_is_sent_to_what_is_no_address(site: Site, path: str, member: str, address: Any) -> None:
    """The command says so, and ends as commands do."""
    site.pages[path][member] = address
    with pytest.raises(Failed):
        device.log_in(wish(site), silent)


def test_paths_keep_their_case(home: Path) -> None:
    """Two paths of one host may be two people's; hosts and usual ports are one however they are spelt."""
    logins.keep("https://a.test/One", "one", 600)
    assert logins.token_for("https://a.test/one") is None
    assert logins.token_for("https://A.TEST:443/One/") == "one"
    assert logins.token_for("https://a.test:444/One") is None
    assert home.exists()


def test_logins_at_one_time_lose_nothing(home: Path) -> None:
    """Each is in the file in the end."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logins.keep(f"https://h{number}.test", f"t{number}", 600), range(40)))
    assert [logins.token_for(f"https://h{number}.test") for number in range(40)] == [f"t{n}" for n in range(40)]
    assert home.exists()


def test_a_file_that_somebody_edited_is_read_as_far_as_it_makes_sense(home: Path) -> None:
    """Entries that are no logins are none."""
    path = logins.keep("https://a.test", "one", 600)
    entries = {"https://b.test": {"token": 1, "ends_s": 9e9}, "https://c.test": {"token": "t", "ends_s": "soon"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    logins.keep("https://d.test", "four", 600)
    assert [logins.token_for(f"https://{name}.test") for name in "abcd"] == ["one", None, None, "four"]
    assert home in path.parents


@pytest.mark.parametrize(
    "body", [b'{"a": "' + b"x" * 2_000_000 + b'"}', b'{"a":' * 40_000, b"\xff\xfe", b'{"issuer": 1e999']
)
@pytest.mark.parametrize("path", ["/.well-known/oauth-protected-resource/mcp", "/.well-known/openid-configuration"])
def test_an_answer_is_read_up_to_a_bound(site: Site, path: str, body: bytes) -> None:
    """Neither its length nor its depth takes the command down."""
    site.pages[path] = body
    with pytest.raises(Failed, match=r"no JSON object|too much"):
        device.log_in(wish(site), silent)


@pytest.mark.parametrize("url", ["https://[", "https://a\x07b/", "https://a:b/", "https://", "ftp://a"])
def test_what_is_no_url_is_said_before_a_token_goes_anywhere(url: str) -> None:
    """As wrong usage, in one line."""
    done = ostiary("run", "show", "x", "--url", url, OSTIARY_TOKEN="t")
    assert (done.returncode, "is no http or https URL" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
