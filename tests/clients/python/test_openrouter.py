"""openrouter: OpenRouter's own client, which validates every response."""

import json

import pytest
from conftest import ANSWER, BASE_URL, FORECAST, FORMAT, HELLO, MODEL, TOOL, each_error
from openrouter import OpenRouter, errors

TYPES = {
    400: errors.BadRequestResponseError,
    401: errors.UnauthorizedResponseError,
    402: errors.PaymentRequiredResponseError,
    403: errors.ForbiddenResponseError,
    404: errors.NotFoundResponseError,
    429: errors.TooManyRequestsResponseError,
    502: errors.BadGatewayResponseError,
}


def client_with(token):
    return OpenRouter(api_key=token, server_url=BASE_URL, retry_config=None)


@pytest.fixture
def client(token):
    return client_with(token)


def test_plain(client):
    result = client.chat.send(model=MODEL, messages=HELLO)
    assert result.choices[0].message.content.endswith(ANSWER)
    assert result.usage.total_tokens > 0
    assert result.usage.cost > 0


def test_streamed(client):
    with client.chat.send(model=MODEL, messages=HELLO, stream=True) as events:
        chunks = list(events)
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(deltas).endswith(ANSWER)
    assert chunks[-1].usage.total_tokens > 0


def test_tools(client):
    result = client.chat.send(model=MODEL, messages=HELLO, tools=[TOOL], tool_choice="required")
    call = result.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == FORECAST


def test_structured_output(client):
    result = client.chat.send(model=MODEL, messages=HELLO, response_format=FORMAT)
    assert json.loads(result.choices[0].message.content) == FORECAST


def test_reasoning(tokens):
    result = client_with(tokens["byok"]).chat.send(
        model=MODEL, messages=HELLO, reasoning={"effort": "high"}
    )
    assert result.choices[0].message.reasoning
    assert result.usage.completion_tokens_details.reasoning_tokens > 0


def test_images(client):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    parts = [{"type": "text", "text": "Hello"}, image]
    result = client.chat.send(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert result.choices[0].message.content.endswith(ANSWER)


def test_models(client):
    models = client.models.list()
    listed = models.result.data if hasattr(models, "result") else models.data
    assert MODEL in {model.id for model in listed}


@each_error
def test_errors(tokens, payer, error):
    with pytest.raises(TYPES[error.status]) as raised:
        client_with(tokens[payer]).chat.send(model=error.model, messages=HELLO)
    assert raised.value.data.error.code == error.status
    assert raised.value.data.error.message


@pytest.mark.parametrize(("who", "status"), [("none", 401), ("poor", 402)])
def test_refusals(tokens, who, status):
    with pytest.raises(TYPES[status]) as raised:
        client_with(tokens[who]).chat.send(model=MODEL, messages=HELLO)
    assert raised.value.data.error.code == status


def test_a_stream_that_breaks_off_carries_the_error(client, payer):
    model = {"byok": "sim/mid/oas-502", "credits": "sim-priced/mid/oas-502"}[payer]
    with client.chat.send(model=model, messages=HELLO, stream=True) as events:
        last = list(events)[-1]
    assert last.error.code == {"byok": 502, "credits": 424}[payer]
    assert last.choices[0].finish_reason == "error"
