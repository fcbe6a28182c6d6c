// openai in Node.

import { test } from "node:test";

import { BASE_URL, tokens } from "./common.js";
import { cases } from "./openai-cases.js";

cases(test, BASE_URL, await tokens());
