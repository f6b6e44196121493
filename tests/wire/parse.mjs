// Reads base64 of JSON texts, one a line, and answers with what JSON.parse makes of each, one a line, spelled so that
// equal lines are equal values: strings and names as hex of UTF-8, numbers as the bits of a double, members sorted.
import { createInterface } from "node:readline";

function spell(value) {
  if (value === null) return "z";
  if (value === true) return "t";
  if (value === false) return "f";
  if (typeof value === "string") return `s${Buffer.from(value, "utf8").toString("hex")}`;
  if (typeof value === "number") {
    const bits = Buffer.alloc(8);
    bits.writeDoubleBE(value === 0 ? 0 : value); // -0 is an integer 0 elsewhere
    return `n${bits.toString("hex")}`;
  }
  if (Array.isArray(value)) return `[${value.map(spell).join(",")}]`;
  const members = Object.keys(value).map((name) => `${Buffer.from(name, "utf8").toString("hex")}:${spell(value[name])}`);
  return `{${members.sort().join(",")}}`;
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = spell(JSON.parse(Buffer.from(line, "base64").toString("utf8")));
  } catch (error) {
    answer = `! ${error.name}`;
  }
  process.stdout.write(`${answer}\n`);
}
