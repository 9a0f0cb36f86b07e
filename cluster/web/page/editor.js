// The large photo: clicks become points, strokes change its mask, and a box is drawn around the thing.

import { canvas, COLOURS, draw } from "./photos.js";

const KEPT = 8; // steps that can be undone
const LEAST = 4; // pixels of a box; what is smaller was a click

export class Editor {
  /** `changed(photo, by, box)` is called after every click ("points"), stroke ("mask") and box ("box"). */
  constructor(view, tools, changed) {
    Object.assign(this, { view, tools, changed, photo: null, first: null, last: null });
    view.addEventListener("pointerdown", (event) => this.begin(event));
    view.addEventListener("pointermove", (event) => this.go(event));
    for (const kind of ["pointerup", "pointercancel"]) view.addEventListener(kind, (event) => this.finish(event));
  }

  edit(photo) {
    this.photo = photo;
    this.last = null;
    this.view.style.setProperty("--ratio", photo.picture.width / photo.picture.height);
    this.draw();
  }

  /** Whether somebody is at a photo this moment. */
  draws(photo) {
    return photo === this.photo && this.last !== null;
  }

  draw() {
    if (!this.photo) return;
    draw(this.view, this.photo, Infinity);
    const pen = this.view.getContext("2d");
    const radius = Math.max(4, this.view.width / 110);
    for (const [x, y, side] of this.photo.points) {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 7);
      pen.fillStyle = side ? "#2fbf5b" : "#e5484d";
      pen.strokeStyle = "#fff";
      pen.lineWidth = radius / 3;
      pen.fill();
      pen.stroke();
    }
    if (this.last && this.boxes) {
      pen.strokeStyle = "#2fbf5b";
      pen.lineWidth = radius / 2;
      const [left, top, right, bottom] = this.box();
      pen.strokeRect(left, top, right - left, bottom - top);
    }
  }

  /** [left, top, right, bottom] from where the pointer was pressed to where it is. */
  box() {
    const [x, y] = this.first, [across, down] = this.last;
    return [Math.min(x, across), Math.min(y, down), Math.max(x, across), Math.max(y, down)].map(Math.round);
  }

  /** What the last step changed is as it was; false if there is none. */
  undo() {
    const before = this.photo.history.pop();
    if (before) Object.assign(this.photo, before);
    this.draw();
    return Boolean(before);
  }

  remember() {
    const { mask, points, history } = this.photo;
    const copy = mask && canvas(mask.width, mask.height);
    copy?.getContext("2d").drawImage(mask, 0, 0);
    history.push({ mask: copy, points: [...points] });
    if (history.length > KEPT) history.shift();
  }

  place(event) {
    const box = this.view.getBoundingClientRect();
    const across = ((event.clientX - box.left) / box.width) * this.view.width;
    const down = ((event.clientY - box.top) / box.height) * this.view.height;
    const within = (value, size) => Math.min(size - 1, Math.max(0, value));
    return [within(across, this.view.width), within(down, this.view.height)];
  }

  begin(event) {
    if (!this.photo || !event.isPrimary || event.button > 0) return;
    event.preventDefault();
    this.view.setPointerCapture(event.pointerId);
    this.remember();
    this.first = this.last = this.place(event);
    if (this.paints) this.stroke(this.last);
  }

  go(event) {
    if (!this.last || !event.isPrimary) return;
    if (this.paints) return this.stroke(this.place(event));
    this.last = this.place(event);
    if (this.boxes) this.draw();
  }

  finish(event) {
    if (!this.last || !event.isPrimary) return;
    const place = this.first, box = this.box();
    this.last = null;
    this.draw();
    const small = Math.min(box[2] - box[0], box[3] - box[1]) < LEAST;
    if ((event.type === "pointercancel" && !this.paints) || (this.boxes && small)) return void this.photo.history.pop();
    if (this.boxes) return this.changed(this.photo, "box", box);
    if (!this.paints) this.photo.points.push([...place, this.tools.tool === "click" ? 1 : 0]);
    this.draw();
    this.changed(this.photo, this.paints ? "mask" : "points");
  }

  get boxes() {
    return this.tools.tool === "box";
  }

  get paints() {
    return ["paint", "erase"].includes(this.tools.tool);
  }

  stroke(to) {
    const { photo, view } = this;
    photo.mask ??= canvas(view.width, view.height);
    const pen = photo.mask.getContext("2d");
    pen.globalCompositeOperation = this.tools.tool === "erase" ? "destination-out" : "source-over";
    pen.strokeStyle = `rgb(${photo.example ? COLOURS.example : COLOURS.found})`;
    pen.lineWidth = (this.tools.size / 100) * Math.max(view.width, view.height);
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(...this.last);
    pen.lineTo(...to);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
    this.last = to;
    this.draw();
  }
}
