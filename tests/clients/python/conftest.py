"""Two accounts, one for each payer, and what their clients ask for.

`byok` has a key, no credits and nothing to fall back on; `credits` has credits and no key.
"""

import json
import os
import urllib.request
from dataclasses import dataclass

import pytest

URL = os.environ["GRETA_URL"]
BASE_URL = f"{URL}/v1"
MODEL = "openai/gpt-4o-mini"
HELLO = [{"role": "user", "content": "Hello"}]
ANSWER = "to: Hello"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather", "parameters": PARAMETERS},
}
FORECAST = {"city": "Hello", "days": 2}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "forecast", "strict": True, "schema": PARAMETERS},
}


@dataclass(frozen=True)
class Error:
    """A request that fails: its model, and the status and code of the response."""

    model: str
    status: int
    code: str


ERRORS = {
    "byok": [
        Error("sim/status-402", 402, "openrouter_payment_required"),
        Error("sim/status-403-moderation", 403, "openrouter_request_refused"),
        Error("sim/status-404", 404, "openrouter_request_rejected"),
        Error("sim/status-429", 429, "openrouter_rate_limited"),
        Error("sim/status-500", 502, "openrouter_unavailable"),
        Error("sim/context-length", 400, "context_length_exceeded"),
    ],
    "credits": [
        Error("no/such-model", 400, "model_not_priced"),
        Error("sim-priced/status-429", 429, "default_ai_rate_limited"),
        Error("sim-priced/status-500", 502, "default_ai_unavailable"),
        Error("sim-priced/context-length", 400, "context_length_exceeded"),
    ],
}
ALL_ERRORS = [(payer, error) for payer, errors in ERRORS.items() for error in errors]


def each_error(function):
    """Runs a test for each error of each payer."""
    names = [f"{payer}-{error.model}" for payer, error in ALL_ERRORS]
    return pytest.mark.parametrize(("payer", "error"), ALL_ERRORS, ids=names)(function)


def send(method, path, body=None, token=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"{URL}{path}", data, method=method)
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def account(name, **state):
    """The token of an account in this state."""
    send("PUT", f"/_dev/accounts/{name}", state)
    return send("POST", "/_dev/token", {"account_id": name, "role": "owner"})["token"]


@pytest.fixture(scope="session")
def tokens():
    byok = account("clients-byok", plan="enterprise", credits="0")
    # Keys can be saved only a few times an hour.
    if send("GET", "/v1/integrations/openrouter", token=byok)["key"] is None:
        key = {"key": "sk-or-v1-clients-0123456789abcdef"}
        send("PUT", "/v1/integrations/openrouter/key", key, byok)
    return {
        "byok": byok,
        "credits": account("clients-credits", plan="standard", credits="50"),
        "poor": account("clients-poor", plan="standard", credits="0"),
        "none": "not-a-token",
    }


@pytest.fixture(params=["byok", "credits"])
def payer(request):
    return request.param


@pytest.fixture
def token(payer, tokens):
    return tokens[payer]
