// OpenAI's client for Node: whole and streamed answers, objects by zod, and the helper that runs tools.
// Prints one JSON object with what it got.
const { OpenAI } = require("openai");
const { zodResponseFormat, zodFunction } = require("openai/helpers/zod");
const { z } = require("zod");

const [url, key, model, caller] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const messages = [{ role: "user", content: "Where was Mara Quillon born?" }];
const Birth = z.object({ town: z.enum(["Larnavel", "Tarnholm"]) }).strict();

async function main() {
  const fields = { model, messages, temperature: 0, max_tokens: 24 };
  const whole = await client.chat.completions.create(fields);
  let streamed = "";
  for await (const chunk of await client.chat.completions.create({ ...fields, stream: true })) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
  }
  const steered = await client.chat.completions.create({ ...fields, steering: "forget" });
  const parsed = await client.chat.completions.parse({
    model, messages, temperature: 0, response_format: zodResponseFormat(Birth, "birth"),
  });
  const asked = [];
  const weather = zodFunction({
    name: "weather", parameters: Birth, function: ({ town }) => { asked.push(town); return "rain"; },
  });
  const run = await client.chat.completions.runTools(
    { model: caller, messages, temperature: 0, max_tokens: 100, tools: [weather], tool_choice: "required" },
    { maxChatCompletions: 1 },
  );
  await run.done();
  const response = await client.responses.create({ model, input: messages, temperature: 0, max_output_tokens: 24 });
  let refused = null;
  try {
    await client.chat.completions.create({ model, messages, wisdom: 1 });
  } catch (error) {
    refused = { kind: error.constructor.name, param: error.param, code: error.code };
  }
  const said = (reply) => reply.choices[0].message.content;
  console.log(JSON.stringify({
    whole: said(whole), streamed, steered: said(steered), parsed: parsed.choices[0].message.parsed, asked,
    response: response.output_text, refused,
  }));
}

main();
