"""One wish to hear of one resource, and how upstreams speak of what is followed."""

import pytest

from gateway.core.canonical import Json
from gateway.core.following import Subscription
from gateway.core.mcpwire import following
from gateway.core.mcpwire.jsonrpc import Notification


def noted(method: str, text: bytes) -> Notification:
    """A notification of an upstream."""
    return Notification(method, Json({}, {}), text)


def test_a_subscription_holds_one_piece_of_news() -> None:
    """It wakes whoever waits each time, and what was taken is no news any more."""
    woken: list[str] = []
    subscription = Subscription(lambda: woken.append("woken"))
    for _ in range(3):
        subscription.updated()
    assert (subscription.is_news, woken) == (True, ["woken"] * 3)


def test_a_subscription_ends_once() -> None:
    """Its connector is told once, and nothing is news after the end."""
    ended: list[str] = []
    subscription = Subscription(lambda: None)
    subscription.begun(lambda: ended.append("ended"))
    subscription.updated()
    subscription.end()
    subscription.end()
    subscription.updated()
    subscription.lost()
    assert (subscription.is_over, subscription.is_news, ended) == (True, False, ["ended"])


def test_a_subscription_that_ended_before_it_began_ends_at_once() -> None:
    """Its caller left while the upstream was asked."""
    ended: list[str] = []
    subscription = Subscription(lambda: None)
    subscription.end()
    subscription.begun(lambda: ended.append("ended"))
    assert ended == ["ended"]


def test_a_lost_subscription_has_one_last_piece_of_news() -> None:
    """What was missed is not known; its connector is not told of the end it made itself."""
    ended: list[str] = []
    subscription = Subscription(lambda: None)
    subscription.begun(lambda: ended.append("ended"))
    subscription.lost()
    assert (subscription.is_over, subscription.is_news) == (True, True)
    subscription.end()
    assert ended == []


@pytest.mark.parametrize(
    ("method", "text", "uri"),
    [
        (following.UPDATED, b'{"uri":"x:a"}', "x:a"),
        (following.UPDATED, b'{"uri":7}', None),
        (following.UPDATED, b'{"uri":"\xff"}', None),
        (following.UPDATED, b"", None),
        ("notifications/other", b'{"uri":"x:a"}', None),
    ],
)
def test_what_has_changed_is_read_strictly(method: str, text: bytes, uri: str | None) -> None:
    """What is malformed says nothing."""
    assert following.updated(noted(method, text)) == uri


@pytest.mark.parametrize(
    ("method", "text", "uris"),
    [
        (following.ACKNOWLEDGED, b'{"notifications":{"resourceSubscriptions":["x:a",7]}}', {"x:a"}),
        (following.ACKNOWLEDGED, b'{"notifications":{"resourceSubscriptions":true}}', set()),
        (following.ACKNOWLEDGED, b'{"notifications":{}}', set()),
        (following.ACKNOWLEDGED, b"[]", set()),
        (following.UPDATED, b"{}", None),
    ],
)
def test_what_is_acknowledged_is_read_strictly(method: str, text: bytes, uris: set[str] | None) -> None:
    """An acknowledgement that is malformed acknowledges nothing; anything else is none."""
    assert following.acknowledged(noted(method, text)) == uris


@pytest.mark.parametrize(
    ("text", "subscription"),
    [
        (b'{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}', 7),
        (b'{"_meta":{"io.modelcontextprotocol/subscriptionId":true}}', None),
        (b'{"_meta":{"io.modelcontextprotocol/subscriptionId":"7"}}', None),
        (b'{"_meta":7}', None),
        (b"{}", None),
        (b"", None),
    ],
)
def test_which_stream_a_notification_belongs_to(text: bytes, subscription: int | None) -> None:
    """One of ours, by its number, or none."""
    assert following.subscription_id(noted(following.UPDATED, text)) == subscription


@pytest.mark.parametrize(
    ("uri", "followed", "is_of"),
    [
        ("file:///a", "file:///a", True),
        ("file:///a/b", "file:///a", True),
        ("file:///a/b", "file:///a/", True),
        ("file:///ab", "file:///a", False),
        ("file:///", "file:///a", False),
    ],
)
def test_a_change_of_a_part_is_one_of_the_whole(uri: str, followed: str, is_of: bool) -> None:
    """And not the other way round."""
    assert following.concerns(uri, followed) is is_of
