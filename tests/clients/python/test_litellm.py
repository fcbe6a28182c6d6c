"""litellm, as a client of an OpenAI-compatible service."""

import json

import litellm
import pytest
from conftest import ANSWER, BASE_URL, FORECAST, FORMAT, HELLO, MODEL, TOOL, each_error

TYPES = {
    400: litellm.BadRequestError,
    401: litellm.AuthenticationError,
    402: litellm.APIError,
    # litellm has no class for 403.
    403: litellm.APIError,
    404: litellm.NotFoundError,
    429: litellm.RateLimitError,
    502: litellm.BadGatewayError,
}


def complete(token, model=MODEL, **more):
    return litellm.completion(
        model=f"openai/{model}",
        api_base=BASE_URL,
        api_key=token,
        messages=HELLO,
        max_retries=0,
        **more,
    )


def test_plain(token):
    completion = complete(token)
    assert completion.choices[0].message.content.endswith(ANSWER)
    assert completion.usage.total_tokens > 0


def test_streamed(token):
    chunks = complete(token, stream=True, stream_options={"include_usage": True})
    completion = litellm.stream_chunk_builder(list(chunks), messages=HELLO)
    assert completion.choices[0].message.content.endswith(ANSWER)
    assert completion.usage.total_tokens > 0


def test_tools(token):
    completion = complete(token, tools=[TOOL], tool_choice="auto")
    call = completion.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == FORECAST


def test_structured_output(token):
    completion = complete(token, response_format=FORMAT)
    assert json.loads(completion.choices[0].message.content) == FORECAST


@each_error
def test_errors(tokens, payer, error):
    with pytest.raises(TYPES[error.status]) as raised:
        complete(tokens[payer], error.model)
    assert raised.value.status_code == error.status
    if (payer, error.code) == ("credits", "context_length_exceeded"):
        # litellm matches known phrases in the message; it does not know OpenRouter's.
        assert isinstance(raised.value, litellm.ContextWindowExceededError)


@pytest.mark.parametrize(("who", "status"), [("none", 401), ("poor", 402)])
def test_refusals(tokens, who, status):
    with pytest.raises(TYPES[status]) as raised:
        complete(tokens[who])
    assert raised.value.status_code == status
