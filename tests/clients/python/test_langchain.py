"""langchain-openai."""

import openai
import pytest
from conftest import ANSWER, BASE_URL, FORECAST, MODEL, PARAMETERS, TOOL, each_error
from langchain_openai import ChatOpenAI
from test_openai import TYPES


def chat(token, model=MODEL):
    return ChatOpenAI(model=model, base_url=BASE_URL, api_key=token, max_retries=0)


def test_plain(token):
    message = chat(token).invoke("Hello")
    assert message.content.endswith(ANSWER)
    assert message.usage_metadata["total_tokens"] > 0


def test_streamed(token):
    chunks = list(chat(token).stream("Hello"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content.endswith(ANSWER)
    assert whole.usage_metadata["total_tokens"] > 0


@pytest.mark.parametrize("choice", ["auto", "required", "weather"])
def test_tools(token, choice):
    message = chat(token).bind_tools([TOOL], tool_choice=choice).invoke("Hello")
    assert message.tool_calls[0]["args"] == FORECAST


def test_structured_output(token):
    schema = PARAMETERS | {"title": "forecast", "description": "A forecast"}
    for method in ["json_schema", "function_calling"]:
        structured = chat(token).with_structured_output(schema, method=method)
        assert structured.invoke("Hello") == FORECAST


@each_error
def test_errors(tokens, payer, error):
    # langchain wraps some of openai's exceptions in subclasses of them.
    with pytest.raises(TYPES[error.status]) as raised:
        chat(tokens[payer], error.model).invoke("Hello")
    assert raised.value.status_code == error.status


def test_refusals(tokens):
    with pytest.raises(openai.AuthenticationError):
        chat(tokens["none"]).invoke("Hello")
    with pytest.raises(openai.APIStatusError) as raised:
        chat(tokens["poor"]).invoke("Hello")
    assert raised.value.status_code == 402
