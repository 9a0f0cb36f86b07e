// openapi.json as a page, without anything from elsewhere.

const schema = await (await fetch("/openapi.json")).json();

function make(tag, text = "", kind = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className: kind });
}

function named(reference) {
  return schema.components.schemas[reference.split("/").pop()];
}

/** A type in words. */
function words(of) {
  if (of.$ref) return words(named(of.$ref));
  if (of.anyOf) return of.anyOf.map(words).join(" or ");
  if (of.type === "array") return `list of ${words(of.items)}`;
  if (of.contentMediaType || of.format === "binary") return "file";
  return of.type ?? "any";
}

/** The rows of a table: a field, its type, and what is said of it. */
function rows(of, required = []) {
  return Object.entries(of).map(([name, field]) => {
    const row = make("tr");
    row.append(make("th", name + (required.includes(name) ? " *" : "")), make("td", words(field)), make("td", field.description ?? ""));
    return row;
  });
}

function table(title, content) {
  const made = make("table");
  made.append(make("caption", title), ...content);
  return made;
}

/** A command that asks for it, of what must be sent, and what stands for one of several that may be. */
function example(way, path, kind, sent) {
  const must = Object.entries(sent?.properties ?? {}).filter(([name, field]) => sent.required?.includes(name) || field.examples);
  const forms = must.map(([name, field]) => ` \\\n    -F ${name}=${words(field).includes("file") ? "@FILE" : name.toUpperCase()}`);
  const json = ` \\\n    -H "Content-Type: application/json" -d @FILE.json`;
  return `curl -X ${way.toUpperCase()} ${location.origin}${path}${kind === "application/json" ? json : forms.join("")}`;
}

for (const [path, ways] of Object.entries(schema.paths)) {
  for (const [way, about] of Object.entries(ways)) {
    const section = make("section");
    const title = make("h2");
    title.append(make("span", way.toUpperCase(), "way"), make("code", path));
    section.append(title, make("div", about.description ?? ""));
    const asked = Object.entries(about.parameters ?? {}).map(([, one]) => [one.name, { ...one.schema, description: one.description }]);
    if (asked.length) section.append(table("in the address", rows(Object.fromEntries(asked))));
    const body = Object.entries(about.requestBody?.content ?? {})[0];
    const sent = body?.[1].schema.$ref ? named(body[1].schema.$ref) : null;
    if (sent?.properties) section.append(table(body[0], rows(sent.properties, sent.required)));
    const answer = Object.values(about.responses).map((one) => one.content?.["application/json"]?.schema?.$ref).find(Boolean);
    if (answer && named(answer).properties) section.append(table("answer", rows(named(answer).properties)));
    section.append(make("pre", example(way, path, body?.[0], sent)));
    document.querySelector("main").append(section);
  }
}
