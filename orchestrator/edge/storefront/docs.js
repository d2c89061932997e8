// The API's page, drawn from /openapi.json; every call can be tried in place. Nothing is loaded from elsewhere.
"use strict";

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const) return schema.const;
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.additionalProperties && schema.additionalProperties !== true) return `name → ${typeOf(schema.additionalProperties)}`;
  return schema.type || "anything";
}

const LIMITS = { minimum: "≥", maximum: "≤", exclusiveMinimum: ">", maxLength: "length ≤", minItems: "entries ≥", maxItems: "entries ≤" };

function limits(schema) {
  const all = [schema, ...(schema.anyOf || [])];
  return all.flatMap((one) => Object.entries(LIMITS).filter(([key]) => key in one).map(([key, sign]) => `${sign} ${one[key]}`)).join(", ");
}

function fields(name, schemas, seen) {
  const schema = schemas[name];
  if (!schema || !schema.properties || seen.has(name)) return [];
  seen.add(name);
  const required = new Set(schema.required || []);
  const rows = Object.entries(schema.properties).map(([field, one]) => {
    const fallback = one.default !== undefined && one.default !== null ? ` Default: ${JSON.stringify(one.default)}.` : "";
    return make("tr", {}, make("td", {}, make("code", { textContent: field }), required.has(field) ? " *" : ""),
      make("td", { textContent: [typeOf(one), limits(one)].filter(Boolean).join(", ") }),
      make("td", { textContent: `${one.description || ""}${fallback}`.trim() }));
  });
  const inner = [...JSON.stringify(schema.properties).matchAll(/schemas\/(\w+)/g)].map((match) => match[1]);
  return [make("h3", { textContent: name }), make("div", { className: "scroll" }, make("table", {}, make("tbody", {}, ...rows))),
    ...inner.flatMap((other) => fields(other, schemas, seen))];
}

function tryOut(path, method, operation) {
  const answer = make("pre", { hidden: true, tabIndex: 0 });
  const target = make("input", { value: path, className: "grow", ariaLabel: "address" });
  const [type, content] = Object.entries(operation.requestBody?.content || {})[0] || [];
  const body = content ? make("textarea", { spellcheck: false, ariaLabel: "body" }) : null;
  const row = make("div", { className: "row" });
  for (const [name, example] of Object.entries(content?.examples || {})) {
    // One item a line: an object over several lines would be several.
    const text = JSON.stringify(example.value, null, type.endsWith("ndjson") ? 0 : 2);
    if (!body.value) body.value = text;
    const pick = make("button", { type: "button", className: "quiet", textContent: name });
    pick.addEventListener("click", () => { body.value = text; });
    row.append(pick);
  }
  const send = make("button", { type: "button", className: "quiet send", textContent: "Send" });
  send.addEventListener("click", async () => {
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const init = { method: method.toUpperCase() };
      if (body) Object.assign(init, { body: body.value, headers: { "content-type": type } });
      const response = await fetch(target.value, init);
      const text = await response.text();
      let shown = text;
      try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* metrics are plain text */ }
      answer.textContent = `${response.status} · ${response.headers.get("server-timing") || ""}\n${shown}`;
    } catch {
      answer.textContent = "No answer; is tutti running?";
    }
  });
  row.append(send);
  const parts = path.includes("{") ? [target] : [];
  return make("details", {}, make("summary", { textContent: "Try it" }), ...parts, ...(body ? [body] : []), row, answer);
}

async function main() {
  const api = await (await fetch("/openapi.json")).json();
  const schemas = api.components.schemas;
  document.getElementById("about").textContent = api.info.description;
  const calls = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => {
    const asked = Object.values(operation.requestBody?.content || {})[0]?.schema?.$ref?.split("/").pop();
    const success = Object.entries(operation.responses).find(([status]) => status.startsWith("2"));
    const given = success?.[1].content?.["application/json"]?.schema?.$ref?.split("/").pop();
    const parameters = (operation.parameters || []).map((one) => make("tr", {},
      make("td", {}, make("code", { textContent: one.name }), one.required ? " *" : ""),
      make("td", { textContent: [typeOf(one.schema), limits(one.schema)].filter(Boolean).join(", ") }), make("td", { textContent: one.in })));
    const codes = Object.entries(operation.responses).map(([status, one]) => `${status} ${one.description}`).join(" · ");
    return make("section", {}, make("h2", {}, make("span", { className: "verb", textContent: method.toUpperCase() }), " ",
      make("code", { textContent: path })), make("p", { textContent: operation.description || operation.summary }),
      tryOut(path, method, operation),
      make("details", {}, make("summary", { textContent: "What goes in" }),
        ...(parameters.length ? [make("table", {}, make("tbody", {}, ...parameters))] : []), ...fields(asked, schemas, new Set())),
      make("details", {}, make("summary", { textContent: "What comes out" }),
        make("p", { className: "small", textContent: codes }), ...fields(given, schemas, new Set())));
  }));
  document.getElementById("calls").replaceChildren(...calls);
}

main().catch(() => { document.getElementById("about").textContent = "openapi.json could not be read."; });
