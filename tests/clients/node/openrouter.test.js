// OpenRouter's own client, which validates every response.

import assert from "node:assert/strict";
import { test } from "node:test";

import { OpenRouter } from "@openrouter/sdk";
import * as errors from "@openrouter/sdk/models/errors";

import { ANSWER, BASE_URL, BROKEN, ERRORS, FORECAST, HELLO, MODEL } from "./common.js";
import { PARAMETERS, PAYERS, TOOL, tokens } from "./common.js";

const TOKENS = await tokens();
const TYPES = {
  400: errors.BadRequestResponseError,
  401: errors.UnauthorizedResponseError,
  402: errors.PaymentRequiredResponseError,
  403: errors.ForbiddenResponseError,
  404: errors.NotFoundResponseError,
  429: errors.TooManyRequestsResponseError,
  502: errors.BadGatewayResponseError,
};

function client(who) {
  const retryConfig = { strategy: "none" };
  return new OpenRouter({ apiKey: TOKENS[who], serverURL: BASE_URL, retryConfig });
}

function send(who, chatRequest) {
  return client(who).chat.send({ chatRequest: { model: MODEL, messages: HELLO, ...chatRequest } });
}

async function chunks(who, model) {
  const all = [];
  for await (const chunk of await send(who, { model, stream: true })) all.push(chunk);
  return all;
}

for (const payer of PAYERS) {
  test(`${payer}: plain`, async () => {
    const result = await send(payer, {});
    assert.match(result.choices[0].message.content, ANSWER);
    assert.ok(result.usage.totalTokens > 0 && result.usage.cost > 0);
  });

  test(`${payer}: streamed`, async () => {
    const all = await chunks(payer, MODEL);
    const text = all.flatMap(({ choices }) => choices.map(({ delta }) => delta.content ?? ""));
    assert.match(text.join(""), ANSWER);
    assert.ok(all.at(-1).usage.totalTokens > 0);
  });

  test(`${payer}: tools`, async () => {
    const result = await send(payer, { tools: [TOOL], toolChoice: "required" });
    const call = result.choices[0].message.toolCalls[0].function;
    assert.deepEqual(JSON.parse(call.arguments), FORECAST);
  });

  test(`${payer}: structured output`, async () => {
    const jsonSchema = { name: "forecast", strict: true, schema: PARAMETERS };
    const result = await send(payer, { responseFormat: { type: "json_schema", jsonSchema } });
    assert.deepEqual(JSON.parse(result.choices[0].message.content), FORECAST);
  });

  test(`${payer}: models`, async () => {
    const { data } = await listed(client(payer).models.list());
    assert.ok(data.some(({ id }) => id === MODEL));
  });

  test(`${payer}: a stream that breaks off`, async () => {
    const last = (await chunks(payer, BROKEN[payer])).at(-1);
    assert.equal(last.error.code, { byok: 502, credits: 424 }[payer]);
    assert.equal(last.choices[0].finishReason, "error");
  });

  for (const [model, status] of ERRORS[payer]) {
    test(`${payer}: ${model}`, async () => {
      await assert.rejects(send(payer, { model }), (error) => {
        assert.ok(error instanceof TYPES[status], error);
        assert.equal(error.data$.error.code, status);
        return true;
      });
    });
  }
}

// The SDK may wrap the list in a page.
async function listed(models) {
  const page = await models;
  return page.result ?? page;
}

test("byok: reasoning", async () => {
  const result = await send("byok", { reasoning: { effort: "high" } });
  assert.ok(result.choices[0].message.reasoning);
});

for (const [who, status] of [["none", 401], ["poor", 402]]) {
  test(`refused: ${status}`, async () => {
    await assert.rejects(send(who, {}), (error) => {
      assert.ok(error instanceof TYPES[status], error);
      assert.equal(error.data$.error.code, status);
      return true;
    });
  });
}
