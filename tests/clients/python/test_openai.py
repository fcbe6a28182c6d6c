"""openai: the client that most projects use."""

import json

import openai
import pytest
from conftest import ANSWER, BASE_URL, FORECAST, FORMAT, HELLO, MODEL, TOOL, each_error

TYPES = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    402: openai.APIStatusError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    502: openai.InternalServerError,
}


def client_with(token):
    return openai.OpenAI(base_url=BASE_URL, api_key=token, max_retries=0)


@pytest.fixture
def client(token):
    return client_with(token)


def test_plain(client):
    completion = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert completion.choices[0].message.content.endswith(ANSWER)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens > 0


def test_streamed(client):
    with client.chat.completions.stream(model=MODEL, messages=HELLO) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content.endswith(ANSWER)
    assert completion.usage.total_tokens > 0


@pytest.mark.parametrize("choice", ["auto", "required", TOOL | {"function": {"name": "weather"}}])
def test_tools(client, choice):
    create = client.chat.completions.create
    completion = create(model=MODEL, messages=HELLO, tools=[TOOL], tool_choice=choice)
    call = completion.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == FORECAST
    answered = [
        *HELLO,
        completion.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    completion = create(model=MODEL, messages=answered, tools=[TOOL])
    assert completion.choices[0].message.content.endswith("to: sunny")


def test_streamed_tools(client):
    with client.chat.completions.stream(model=MODEL, messages=HELLO, tools=[TOOL]) as stream:
        completion = stream.get_final_completion()
    assert json.loads(completion.choices[0].message.tool_calls[0].function.arguments) == FORECAST


def test_structured_output(client):
    completion = client.chat.completions.parse(
        model=MODEL, messages=HELLO, response_format=FORMAT
    )
    assert json.loads(completion.choices[0].message.content) == FORECAST


def test_models(client):
    assert MODEL in {model.id for model in client.models.list()}


@each_error
def test_errors(tokens, payer, error):
    with pytest.raises(TYPES[error.status]) as raised:
        client_with(tokens[payer]).chat.completions.create(model=error.model, messages=HELLO)
    assert raised.value.status_code == error.status
    assert (raised.value.type, raised.value.code) == (error.code, error.status)
    if error.status == 429:
        assert int(raised.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("who", "status", "code"),
    [("none", 401, "invalid_token"), ("poor", 402, "insufficient_credits")],
)
def test_refusals(tokens, who, status, code):
    with pytest.raises(TYPES[status]) as raised:
        client_with(tokens[who]).chat.completions.create(model=MODEL, messages=HELLO)
    assert (raised.value.status_code, raised.value.type) == (status, code)
    assert raised.value.code == status


def test_a_stream_that_breaks_off_is_an_error(client, payer):
    model = {"byok": "sim/mid/oas-502", "credits": "sim-priced/mid/oas-502"}[payer]
    chunks = client.chat.completions.create(model=model, messages=HELLO, stream=True)
    with pytest.raises(openai.APIError):
        list(chunks)
