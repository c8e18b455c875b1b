"""A throw-away child that parses a bundle, runs its tests or follows one decision; started by path like ``worker.py``.

One request (JSON) on stdin: ``modules`` [[name, text], ...] and ``task`` ``parse`` | ``test`` | ``follow``; for tests
also ``data`` (JSON text) and ``rules`` [path, ...]; to follow these and ``input`` (JSON text). Answers are JSON lines,
each written before the next step begins, so that whoever waits knows at which step the engine hung or died.
"""

import json
import os
import resource
import sys

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

from typing import Any

import regorus


def main() -> None:
    """Carry out the one request."""
    request = json.loads(sys.stdin.buffer.read())
    if request["task"] == "parse":
        _parse(request["modules"])
    elif request["task"] == "follow":
        _follow(request)
    else:
        _test(request)


def _say(answer: dict[str, Any]) -> None:
    line = json.dumps(answer).encode() + b"\n"
    view = memoryview(line)
    while view:
        view = view[os.write(1, view) :]


def _words(error: Exception) -> str:
    return str(error).split("Stack backtrace:", maxsplit=1)[0].strip()


def _parse(modules: list[list[str]]) -> None:
    version = json.loads(regorus.Engine().eval_query_as_json("opa.runtime()"))
    _say({"builtins": version["result"][0]["expressions"][0]["value"]["builtins"]})
    for name, text in modules:
        engine = regorus.Engine()
        try:
            engine.add_policy(name, text)
            _say({"file": name, "ast": json.loads(engine.get_ast_as_json())[0]["ast"]})
        except RuntimeError as error:
            _say({"file": name, "error": _words(error)})


def _loaded(request: dict[str, Any], document: str) -> Any:
    engine = regorus.Engine()
    for name, text in request["modules"]:
        engine.add_policy(name, text)
    engine.add_data_json(request["data"])
    engine.set_enable_coverage(True)
    engine.set_input_json(document)
    return engine


def _follow(request: dict[str, Any]) -> None:
    engine = _loaded(request, request["input"])
    for rule in request["rules"]:
        try:
            _say({"rule": rule, "value": json.loads(engine.eval_rule_as_json(rule))})
        except RuntimeError as error:
            _say({"rule": rule, "error": _words(error)})
    _say({"coverage": _coverage(engine)})


def _coverage(engine: Any) -> list[list[Any]]:
    report = json.loads(engine.get_coverage_report_as_json())["files"]
    return [[item["path"], item["covered"], item["not_covered"]] for item in report]


def _test(request: dict[str, Any]) -> None:
    engine = _loaded(request, "{}")
    for rule in request["rules"]:
        _say({"begins": rule})
        try:
            _say({"rule": rule, "passed": engine.eval_rule_as_json(rule) == "true"})
        except RuntimeError as error:
            _say({"rule": rule, "passed": False, "error": _words(error)})
        _say({"coverage": _coverage(engine)})


if __name__ == "__main__":
    main()
