// The page: photos, which of them are examples of the thing, and what was found in the others.

import { Editor } from "./editor.js";
import { COLOURS, draw, maskOf, png, read, shows, tinted } from "./photos.js";
import * as server from "./server.js";

const AT_ONCE = 4; // photos of one request, so that answers appear as they come
const THUMB = 360;
const $ = (what) => document.querySelector(what);

const photos = [];
let current = null;
let thing = null;
let round = 0; // grows with every change: what was asked before it is answered in vain
let limits = { images: 32 };

const tools = {
  get tool() { return $("input[name=tool]:checked").value; },
  get size() { return Number($("#size").value); },
};
const editor = new Editor($("#editor"), tools, (photo, by, box) => tried(() => marked(photo, by, box)));

/** Do something, and tell its error. */
async function tried(work) {
  try {
    return await work();
  } catch (error) {
    tell(error.message);
  }
}

function tell(text) {
  $("#problem").textContent = text;
  $("#problem").hidden = !text;
}

async function add(files) {
  for (const file of files) {
    const photo = await tried(() => read(file));
    if (!photo) continue;
    photos.push(photo);
    photo.card = card(photo);
    $("#gallery").append(photo.card.item);
    if (!current) choose(photo);
    show();
  }
  if (thing) await tried(find);
}

function card(photo) {
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button", className: "photo" });
  const view = document.createElement("canvas");
  const name = Object.assign(document.createElement("span"), { textContent: photo.name, title: photo.name });
  const told = Object.assign(document.createElement("span"), { className: "told" });
  button.append(view, name, told);
  button.addEventListener("click", () => choose(photo));
  item.append(button);
  return { item, button, view, told };
}

function choose(photo) {
  current = photo;
  editor.edit(photo);
  show();
}

/** [state, words] of a photo. */
function state({ example, asked, corrected, told }) {
  if (example) return ["example", "example"];
  if (asked) return ["asked", "looking …"];
  if (corrected) return ["found", "corrected"];
  if (!told) return ["new", "\u00a0"];
  if (!told.present) return ["absent", "not there"];
  return ["found", `there, ${Math.round(100 * (told.chance ?? told.confidence))} %`];
}

const holds = (photo) => photo.example || photo.corrected || Boolean(photo.told?.present);

function show() {
  const some = photos.length > 0;
  $("#start").hidden = some;
  $("#work").hidden = $("#photos").hidden = !some;
  $("main").classList.toggle("working", some);
  for (const photo of photos) {
    const { button, view, told } = photo.card;
    const [name, words] = state(photo);
    button.dataset.state = name;
    button.setAttribute("aria-current", photo === current);
    told.textContent = words;
    draw(view, photo, THUMB);
  }
  editor.draw();
  const waiting = photos.filter((one) => one.asked).length;
  const examples = photos.filter((one) => one.example).length;
  const found = photos.filter((one) => holds(one) && !one.example).length;
  $("#state").textContent = waiting ? `looking at ${waiting} more …`
    : thing ? `${found} of ${photos.length - examples} hold it, by ${examples} example${examples > 1 ? "s" : ""}` : "";
  $("#hint").textContent = hint();
  $("#undo").disabled = !current?.history.length;
  $("#clear").disabled = !current?.mask && !current?.points.length;
  $("#example").hidden = Boolean(current?.example) || !thing;
  $("#example").disabled = !current?.mask;
  $("#again").hidden = !thing;
  $("#again").textContent = current?.example ? "No example any more" : "Take the model's answer";
  $("#again").disabled = !current || !(current.corrected || current.example);
  $("#download").disabled = !thing || waiting > 0;
}

function hint() {
  if (!thing) return "Click on the thing, draw a box around it, or paint over it. A painted mask is better.";
  if (current.example) return "This is an example. What you change here changes what is looked for.";
  if (current.corrected) return "Corrected. As a further example it helps to find the thing elsewhere.";
  return "Not right? Paint, erase or click: this photo's mask is then yours.";
}

/** The user has marked something on a photo: the first one becomes an example, others are corrected. */
async function marked(photo, by, box) {
  tell("");
  if (by !== "points") photo.points = [];
  if (by !== "mask") {
    const made = await server.show({ image: photo.sent, ...(box ? { box } : { points: photo.points }) });
    photo.mask = await maskOf(made.mask, COLOURS.found);
  }
  if (photo.example || !photos.some((one) => one.example)) return teach(photo, shows(photo.mask));
  photo.corrected = true;
  show();
}

/** Take a photo as an example, or no more, and look for the thing anew. */
async function teach(photo, example) {
  photo.example = example;
  photo.corrected = false;
  if (photo.mask) tinted(photo.mask, example ? COLOURS.example : COLOURS.found);
  if (!example) photo.told = null;
  const mine = ++round;
  let name = null;
  for (const one of photos.filter((each) => each.example)) {
    name = (await server.show({ image: one.sent, mask: await png(one.mask, one.picture), thing: name })).thing;
    if (mine !== round) return;
  }
  thing = name;
  for (const one of photos) {
    one.told = null;
    if (!thing && !one.corrected) one.mask = null;
  }
  await find();
}

/** Look for the thing in all photos that are not the user's own and have no answer yet, the current one first. */
async function find() {
  const mine = ++round;
  const open = photos.filter((one) => thing && !one.example && !one.told);
  open.sort((a, b) => (b === current) - (a === current));
  for (const one of photos) one.asked = open.includes(one);
  show();
  try {
    for (let at = 0; at < open.length; at += AT_ONCE) {
      const some = open.slice(at, at + AT_ONCE);
      const answers = await server.find(thing, some.map((one) => [one.name, one.sent]));
      if (mine !== round) return;
      await Promise.all(some.map((one, place) => take(one, answers[place])));
      show();
    }
  } catch (error) {
    if (error.status === 404 && mine === round) return await remind();
    throw error;
  } finally {
    if (mine === round) for (const one of photos) one.asked = false;
    show();
  }
}

/** The server has forgotten the thing: show the examples again. */
async function remind() {
  const example = photos.find((one) => one.example);
  await teach(example, true);
}

async function take(photo, told) {
  photo.told = told;
  photo.asked = false;
  if (photo.corrected || editor.draws(photo)) return; // it is the user's
  photo.mask = told.present ? await maskOf(told.mask, COLOURS.found) : null;
  photo.points = [];
  photo.history = [];
}

async function download() {
  for (let at = 0; at < photos.length; at += limits.images) {
    const some = photos.slice(at, at + limits.images);
    const masks = [];
    for (const one of some) masks.push([one.name, await png(one.mask, one)]);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await server.pack($("#name").value, masks));
    link.download = at ? `masks-${at / limits.images + 1}.zip` : "masks.zip";
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

for (const input of ["#files", "#more"]) {
  $(input).addEventListener("change", ({ target }) => {
    add([...target.files]);
    target.value = "";
  });
}
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") add([...event.dataTransfer.files]);
  });
}
$("#undo").addEventListener("click", () => tried(() => editor.undo() && after(current)));
$("#clear").addEventListener("click", () => tried(() => {
  editor.remember();
  Object.assign(current, { mask: null, points: [] });
  return after(current);
}));
$("#example").addEventListener("click", () => tried(() => teach(current, true)));
$("#again").addEventListener("click", () => tried(() => {
  Object.assign(current, { mask: null, points: [], history: [] });
  if (current.example) return teach(current, false);
  current.corrected = false;
  current.told = null;
  return find();
}));
$("#download").addEventListener("click", () => tried(download));
$("#problem").addEventListener("click", () => tell(""));

/** A photo's mask was changed by a button. */
function after(photo) {
  const any = Boolean(photo.mask && shows(photo.mask));
  if (photo.example) return teach(photo, any);
  photo.corrected = true;
  show();
}

tried(async () => {
  const told = await server.model();
  limits = told.limits;
  $("#model").textContent = `${told.model.name} on ${told.backbone.name}`;
  $("#name").value = told.name;
});
show();
