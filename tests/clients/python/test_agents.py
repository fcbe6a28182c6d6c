"""instructor and pydantic-ai, which check a model's output against a type."""

import instructor
import openai
import pytest
from conftest import BASE_URL, HELLO, MODEL
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    name: str
    people: int = Field(ge=1000)


class Trip(BaseModel):
    cities: list[City] = Field(min_length=2)
    days: int = Field(gt=1, le=14)


MODES = [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]


@pytest.mark.parametrize("mode", MODES)
def test_instructor(token, mode):
    client = openai.OpenAI(base_url=BASE_URL, api_key=token, max_retries=0)
    client = instructor.from_openai(client, mode=mode)
    trip = client.chat.completions.create(
        model=MODEL, messages=HELLO, response_model=Trip, max_retries=0
    )
    assert len(trip.cities) == 2


@pytest.fixture
def model(token):
    return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=token))


def test_an_agent_calls_a_function_and_answers_in_a_type(model):
    agent = Agent(model, output_type=Trip)
    asked = []

    @agent.tool_plain
    def weather(city: str) -> str:
        asked.append(city)
        return "sunny"

    run = agent.run_sync("Hello")
    assert asked == ["Hello"]
    assert run.output.days == 2
    assert run.usage.total_tokens > 0


def test_an_agent_with_structured_output(model):
    run = Agent(model, output_type=NativeOutput(Trip)).run_sync("Hello")
    assert run.output.days == 2
