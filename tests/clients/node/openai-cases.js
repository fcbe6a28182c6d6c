// The cases for the `openai` package, in Node and in a browser. Calls `check(name, run)` for each.

import OpenAI from "openai";

import { ANSWER, BROKEN, ERRORS, FORECAST, HELLO, MODEL } from "./common.js";
import { PARAMETERS, PAYERS, TOOL } from "./common.js";

const TYPES = {
  400: OpenAI.BadRequestError,
  401: OpenAI.AuthenticationError,
  402: OpenAI.APIError,
  403: OpenAI.PermissionDeniedError,
  404: OpenAI.NotFoundError,
  429: OpenAI.RateLimitError,
  502: OpenAI.InternalServerError,
};

function expect(condition, found) {
  if (!condition) throw new Error(`found ${JSON.stringify(found)}`);
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("no error");
}

export function cases(check, baseURL, tokens, options = {}) {
  const client = (who) =>
    new OpenAI({ baseURL, apiKey: tokens[who], maxRetries: 0, ...options }).chat.completions;
  for (const payer of PAYERS) {
    check(`${payer}: plain`, async () => {
      const completion = await client(payer).create({ model: MODEL, messages: HELLO });
      expect(ANSWER.test(completion.choices[0].message.content), completion);
      expect(completion.usage.total_tokens > 0, completion);
    });
    check(`${payer}: the receipt`, async () => {
      const request = client(payer).create({ model: MODEL, messages: HELLO });
      const { response } = await request.withResponse();
      const expected = { byok: "openrouter", credits: "greta_credits" }[payer];
      expect(response.headers.get("x-greta-payer") === expected, [...response.headers]);
    });
    check(`${payer}: streamed`, async () => {
      const stream = client(payer).stream({ model: MODEL, messages: HELLO });
      const completion = await stream.finalChatCompletion();
      expect(ANSWER.test(completion.choices[0].message.content), completion);
      expect((await stream.totalUsage()).total_tokens > 0, completion);
    });
    check(`${payer}: tools`, async () => {
      const stream = client(payer).stream({ model: MODEL, messages: HELLO, tools: [TOOL] });
      const completion = await stream.finalChatCompletion();
      const call = completion.choices[0].message.tool_calls[0].function;
      expect(call.arguments === JSON.stringify(FORECAST), call);
    });
    check(`${payer}: structured output`, async () => {
      const json_schema = { name: "forecast", strict: true, schema: PARAMETERS };
      const response_format = { type: "json_schema", json_schema };
      const request = { model: MODEL, messages: HELLO, response_format };
      const completion = await client(payer).parse(request);
      expect(completion.choices[0].message.content === JSON.stringify(FORECAST), completion);
    });
    check(`${payer}: a stream that breaks off`, async () => {
      const stream = client(payer).stream({ model: BROKEN[payer], messages: HELLO });
      const error = await failure(stream.finalChatCompletion());
      expect(error instanceof OpenAI.APIError, error);
      expect(!(error instanceof OpenAI.APIConnectionError), error);
    });
    for (const [model, status, code] of ERRORS[payer]) {
      check(`${payer}: ${model}`, async () => {
        const error = await failure(client(payer).create({ model, messages: HELLO }));
        expect(error instanceof TYPES[status], error);
        expect(error.status === status && error.type === code && error.code === status, error);
        const retryAfter = Number(error.headers.get("retry-after"));
        expect(status !== 429 || retryAfter > 0, [...error.headers]);
      });
    }
  }
  const refusals = [["none", 401, "invalid_token"], ["poor", 402, "insufficient_credits"]];
  for (const [who, status, code] of refusals) {
    check(`refused: ${code}`, async () => {
      const error = await failure(client(who).create({ model: MODEL, messages: HELLO }));
      expect(error instanceof TYPES[status], error);
      expect(error.type === code && error.code === status, error);
    });
  }
}
