// The AI SDK with OpenRouter's provider.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { APICallError, Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { ANSWER, BASE_URL, BROKEN, ERRORS, FORECAST, MODEL, PAYERS, tokens } from "./common.js";

const TOKENS = await tokens();
const FORECAST_TYPE = z.object({ city: z.string(), days: z.number().int().min(2) });
const prompt = "Hello";

function model(who, id = MODEL) {
  return createOpenRouter({ apiKey: TOKENS[who], baseURL: BASE_URL })(id);
}

for (const payer of PAYERS) {
  test(`${payer}: plain`, async () => {
    const { text, usage } = await generateText({ model: model(payer), prompt });
    assert.match(text, ANSWER);
    assert.ok(usage.totalTokens > 0);
  });

  test(`${payer}: streamed`, async () => {
    const result = streamText({ model: model(payer), prompt });
    assert.match(await result.text, ANSWER);
    assert.equal(await result.finishReason, "stop");
    assert.ok((await result.usage).totalTokens > 0);
  });

  for (const run of [generateText, streamText]) {
    test(`${payer}: tools with ${run.name}`, async () => {
      const inputs = [];
      const weather = tool({
        inputSchema: FORECAST_TYPE,
        execute: (input) => {
          inputs.push(input);
          return "sunny";
        },
      });
      const stopWhen = stepCountIs(3);
      const result = await run({ model: model(payer), prompt, tools: { weather }, stopWhen });
      assert.match(await result.text, /sunny/);
      assert.deepEqual(inputs, [FORECAST]);
    });

    test(`${payer}: structured output with ${run.name}`, async () => {
      const output = Output.object({ schema: FORECAST_TYPE });
      const result = await run({ model: model(payer), prompt, output });
      assert.deepEqual(await result.output, FORECAST);
    });
  }

  test(`${payer}: images`, async () => {
    const image = "data:image/png;base64,iVBORw0KGgo=";
    const content = [{ type: "text", text: prompt }, { type: "image", image }];
    const messages = [{ role: "user", content }];
    const { text } = await generateText({ model: model(payer), messages });
    assert.match(text, ANSWER);
  });

  test(`${payer}: a stream that breaks off`, async () => {
    const errors = [];
    const onError = ({ error }) => errors.push(error);
    const result = streamText({ model: model(payer, BROKEN[payer]), prompt, onError });
    await result.consumeStream();
    assert.equal(errors.length, 1);
    assert.equal(await result.finishReason, "error");
  });

  for (const [id, status, code] of ERRORS[payer]) {
    test(`${payer}: ${id}`, async () => {
      const call = generateText({ model: model(payer, id), prompt, maxRetries: 0 });
      await assert.rejects(call, (error) => {
        assert.ok(APICallError.isInstance(error), error);
        assert.equal(error.statusCode, status);
        const { error: body } = JSON.parse(error.responseBody);
        assert.deepEqual([body.type, body.code], [code, status]);
        // What the provider read from the body.
        assert.equal(error.data?.error.message, body.message);
        return true;
      });
    });
  }
}

test("byok: reasoning", async () => {
  const providerOptions = { openrouter: { reasoning: { effort: "high" } } };
  const result = await generateText({ model: model("byok"), prompt, providerOptions });
  assert.ok(result.reasoningText);
});

for (const [who, status] of [["none", 401], ["poor", 402]]) {
  test(`refused: ${status}`, async () => {
    const call = generateText({ model: model(who), prompt, maxRetries: 0 });
    await assert.rejects(call, (error) => error.statusCode === status);
  });
}
