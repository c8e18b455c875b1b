"""Names of tools and their effect classes, from what a document says. No name is a path, and no doubt is a read."""

import re
from typing import Final

from gateway.cli.openapi.document import At
from gateway.core.tool import EffectClass

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _./:-]{1,200}")
_EFFECTS: Final = {
    "get": EffectClass.READ,
    "post": EffectClass.WRITE,
    "put": EffectClass.WRITE,
    "patch": EffectClass.WRITE,
    "delete": EffectClass.DESTRUCTIVE,
}
METHODS: Final = tuple(_EFFECTS)
# Words of paths and ids whose requests do something, whatever their method says.
_DOING: Final = frozenset(
    {
        "abort", "accept", "activate", "add", "apply", "approve", "assign", "ban", "buy", "cancel", "clear",
        "confirm", "create", "deactivate", "delete", "deploy", "destroy", "disable", "dismiss", "drop", "enable",
        "erase", "execute", "install", "invoke", "kill", "logout", "modify", "pause", "pay", "publish", "purge",
        "reboot", "register", "reject", "remove", "rename", "replace", "reset", "restart", "restore", "resume",
        "revoke", "send", "shutdown", "start", "stop", "submit", "subscribe", "suspend", "terminate", "toggle",
        "trigger", "unblock", "uninstall", "unlock", "unregister", "unsubscribe", "update", "upload", "upsert",
        "wipe",
    }
)  # fmt: skip
# These are things as well: they do something where a path ends with one, or an id begins with it.
_MAYBE: Final = frozenset(
    {
        "archive", "block", "book", "charge", "close", "commit", "export", "grant", "import", "insert", "lock",
        "merge", "move", "open", "order", "post", "push", "put", "refund", "release", "run", "save", "set",
        "transfer", "void", "write",
    }
)  # fmt: skip
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def tool_name(operation: At, method: str, path: str) -> str:
    """The name inside of an operation: its own, else one made of method and path.

    Raises:
        Refused: its own is none.
    """
    if not operation.has("operationId"):
        words = [word for word in re.split(r"[^A-Za-z0-9]+", path) if word]
        return "_".join([method, *words])[:128]
    at = operation.member("operationId")
    said = at.value
    if not isinstance(said, str) or not _PLAIN.fullmatch(said) or ".." in said or said.startswith(("/", ".")):
        raise at.refused("operation_id", "it must be of letters, digits, blanks and _ . / : -, and lead nowhere")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", said)
    if not _NAME.fullmatch(name):
        raise at.refused("operation_id", "it is no name: at most 128 letters, digits, _ . -")
    return name


def effect(method: str, path: str, name: str) -> tuple[EffectClass, str | None]:
    """The effect class of an operation, and the word that made a GET more than a read.

    A path parameter's name is no word of what the request does.
    """
    by_method = _EFFECTS[method]
    if by_method is not EffectClass.READ:
        return by_method, None
    in_path, in_name = _words(re.sub(r"\{[^}]*\}", " ", path)), _words(name)
    doing = [word for word in in_path + in_name if word in _DOING]
    ends = [] if path.endswith("}") else in_path[-1:]
    doing += [word for word in ends + in_name[:1] if word in _MAYBE]
    return (EffectClass.DESTRUCTIVE, doing[0]) if doing else (by_method, None)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(text)]
