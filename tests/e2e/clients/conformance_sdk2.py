"""The official Python SDK's own client, as the conformance suite drives it: ``conformance_sdk2.py URL``.

It does what an application of the SDK would: list, call every tool, answer questions with the schema's defaults, and in
the ``auth/`` scenarios let the SDK find out whom to ask for a token. Nothing here mends what the SDK does not do.
"""

import asyncio
import json
import os
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client, types
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

CALLBACK = "http://127.0.0.1:8400/callback"
DOCUMENT = "https://conformance-test.local/client-metadata.json"
SAMPLES: dict[str, Any] = {"number": 5, "integer": 5, "boolean": True, "array": [], "object": {}}


class Kept:
    """What the SDK wants kept, for as long as this runs."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self.tokens: OAuthToken | None = None
        self.client = client

    async def get_tokens(self) -> OAuthToken | None:
        """What the server gave, if it has."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep what the server gave."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """As whom it is registered, if it is."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep as whom it is registered."""
        self.client = client_info


class Person:
    """Says yes at once, as a browser with a session would."""

    def __init__(self) -> None:
        self.said: dict[str, list[str]] = {}

    async def open(self, url: str) -> None:
        """Follow the address up to the way back."""
        async with httpx2.AsyncClient() as client:
            answer = await client.get(url)
        self.said = parse_qs(urlsplit(answer.headers["location"]).query)

    async def come_back(self) -> AuthorizationCodeResult:
        """What stood in the way back."""
        said = {name: values[0] for name, values in self.said.items()}
        return AuthorizationCodeResult(code=said["code"], state=said.get("state"), iss=said.get("iss"))


def auth(url: str, scenario: str, given: dict[str, Any]) -> httpx2.Auth | None:
    """How the SDK gets a token in this scenario."""
    if not scenario.startswith("auth/"):
        return None
    if scenario == "auth/client-credentials-basic":
        return ClientCredentialsOAuthProvider(url, Kept(), given["client_id"], given["client_secret"])
    if scenario == "auth/client-credentials-jwt":
        name = given["client_id"]
        algorithm = given.get("signing_algorithm", "ES256")
        signed = SignedJWTParameters(
            issuer=name, subject=name, signing_algorithm=algorithm, signing_key=given["private_key_pem"]
        )
        return PrivateKeyJWTOAuthProvider(url, Kept(), name, signed.create_assertion_provider())
    person, known = Person(), None
    if "client_id" in given:
        secret = given.get("client_secret")
        known = OAuthClientInformationFull(
            client_id=given["client_id"],
            client_secret=secret,
            redirect_uris=[CALLBACK],
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
        )
    said = OAuthClientMetadata(client_name="probe", redirect_uris=[CALLBACK])
    return OAuthClientProvider(url, said, Kept(known), person.open, person.come_back, DOCUMENT)


async def answered(context: Any, asked: types.ElicitRequestParams) -> types.ElicitResult:
    """The defaults of the form."""
    del context
    form = getattr(asked, "requested_schema", {}).get("properties", {})
    return types.ElicitResult(
        action="accept", content={n: one["default"] for n, one in form.items() if "default" in one}
    )


def sample(schema: dict[str, Any]) -> dict[str, Any]:
    """Something of its type for each property."""
    said = schema.get("properties", {})
    return {
        name: one.get("default", one.get("enum", [SAMPLES.get(one.get("type"), "x")])[0]) for name, one in said.items()
    }


async def sampled(context: Any, asked: Any) -> types.CreateMessageResult:
    """A scripted model."""
    del context, asked
    return types.CreateMessageResult(
        role="assistant", model="scripted", content=types.TextContent(type="text", text="x")
    )


async def rooted(context: Any) -> types.ListRootsResult:
    """One root."""
    del context
    return types.ListRootsResult(roots=[types.Root(uri="file:///x")])


async def used(client: Client, given: dict[str, Any]) -> None:
    """List, and call everything once: as the scenario wants it, or with something of the right type."""
    wanted = {one["name"]: one["arguments"] for one in given.get("toolCalls", [])}
    tools = (await client.list_tools()).tools
    # This tool is to be told what the client has kept of its own schema.
    kept = [tool.input_schema for tool in tools if tool.name == "json_schema_2020_12_tool"]
    wanted |= {"json_schema_echo": {"schema": one} for one in kept[:1]}  # noqa: B035 -- at most one
    said = await asyncio.gather(
        *[client.call_tool(tool.name, wanted.get(tool.name, sample(tool.input_schema))) for tool in tools],
        return_exceptions=True,
    )
    refused = [one for one in said if isinstance(one, BaseException)]
    if refused and os.environ["MCP_CONFORMANCE_SCENARIO"].startswith("auth/"):
        raise refused[0]
    if client.server_capabilities.prompts:
        for prompt in (await client.list_prompts()).prompts:
            await client.get_prompt(prompt.name, {one.name: "x" for one in prompt.arguments or []})
    if client.server_capabilities.resources:
        for resource in (await client.list_resources()).resources:
            await client.read_resource(str(resource.uri))


async def main(url: str) -> None:
    """One session."""
    scenario, given = (
        os.environ["MCP_CONFORMANCE_SCENARIO"],
        json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}")),
    )
    version = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
    mode = "legacy" if version < "2026" else "auto"
    async with create_mcp_http_client(auth=auth(url, scenario, given)) as http:
        way = streamable_http_client(url, http_client=http)
        callbacks = {"elicitation_callback": answered, "sampling_callback": sampled, "list_roots_callback": rooted}
        async with Client(way, mode=mode, **callbacks) as client:
            await used(client, given)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
