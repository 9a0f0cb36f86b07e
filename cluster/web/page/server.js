// What the page asks of its server. A refusal is an Error whose message is the server's own sentence.

const KEY = "token";

/** Ask for the token until the server takes it; tests and users answer in the same dialog. */
async function askToken() {
  const dialog = document.querySelector("#ask");
  const field = dialog.querySelector("#token");
  field.value = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  sessionStorage.setItem(KEY, field.value.trim());
}

async function ask(path, form) {
  const token = sessionStorage.getItem(KEY);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, form ? { method: "POST", body: form, headers } : { headers });
  } catch {
    throw new Error("The server does not answer; is it running?");
  }
  if (answer.status === 401) {
    await askToken();
    return ask(path, form);
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told.detail || `The server answered ${answer.status}.`), { status: answer.status });
  }
  return answer;
}

function filled(parts) {
  const form = new FormData();
  for (const [name, value, file] of parts) {
    if (value !== undefined && value !== null) file ? form.append(name, value, file) : form.append(name, value);
  }
  return form;
}

/** What is served, and what a request may bring. */
export async function model() {
  return (await (await ask("/models")).json())[0];
}

/** Show the thing on a photo, by a mask, a box or points; `thing` has the supports before it. */
export async function show({ image, mask, box, points, thing }) {
  const parts = [["image", image, "photo.jpg"], ["mask", mask, "mask.png"], ["thing", thing]];
  if (box) parts.push(["box", JSON.stringify(box)]);
  if (points) parts.push(["points", JSON.stringify(points)]);
  return (await ask("/supports", filled(parts))).json();
}

/** The answers for images, [name, blob] each. */
export async function find(thing, images) {
  const parts = [["thing", thing], ...images.map(([name, blob]) => ["images", blob, name])];
  return (await (await ask("/segment", filled(parts))).json()).answers;
}

/** A zip of masks, [name, blob] each. */
export async function pack(name, masks) {
  return (await ask("/masks", filled([["name", name], ...masks.map(([of, blob]) => ["masks", blob, of])]))).blob();
}
