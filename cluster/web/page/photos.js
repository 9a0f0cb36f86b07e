// Photos and their masks. A mask is a canvas as large as the photo's working copy: opaque where the thing is.

const SIDE = 1280; // longer side of working copies, pixels; the model sees less
export const COLOURS = { found: [0, 140, 255], example: [230, 159, 0] };

export function canvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

export const blob = (of, type, quality) =>
  new Promise((done, failed) =>
    of.toBlob((made) => (made ? done(made) : failed(new Error("This browser cannot write the picture."))), type, quality));

/** A photo of a file: upright, with a working copy that is sent and shown; `mask` is null until there is one. */
export async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${file.name}: this browser reads no such picture.`);
  }
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const picture = canvas(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  const pen = picture.getContext("2d");
  pen.fillStyle = "#fff"; // what is behind transparency
  pen.fillRect(0, 0, picture.width, picture.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, picture.width, picture.height);
  const size = { width: bitmap.width, height: bitmap.height };
  bitmap.close();
  return {
    name: file.name, ...size, picture, sent: await blob(picture, "image/jpeg", 0.92),
    mask: null, points: [], history: [], told: null, example: false, corrected: false, asked: false,
  };
}

/** A mask as a canvas, of a PNG in base64 whose black pixels are not the thing. */
export async function maskOf(text, colour) {
  const image = new Image();
  image.src = `data:image/png;base64,${text}`;
  await image.decode();
  const made = canvas(image.width, image.height);
  const pen = made.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, made.width, made.height);
  // a palette mask is blue, one of numbers 0, 1 and 255 (void) is nearly black where the thing is
  for (let at = 0; at < pixels.data.length; at += 4) {
    const [red, , blue] = pixels.data.subarray(at, at + 3);
    pixels.data[at + 3] = blue && red !== 255 ? 255 : 0;
  }
  pen.putImageData(pixels, 0, 0);
  return tinted(made, colour);
}

/** The mask in another colour, in place. */
export function tinted(mask, colour) {
  const pen = mask.getContext("2d");
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = `rgb(${colour})`;
  pen.fillRect(0, 0, mask.width, mask.height);
  pen.globalCompositeOperation = "source-over";
  return mask;
}

/** Whether a mask shows anything. */
export function shows(mask) {
  const { data } = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height);
  for (let at = 3; at < data.length; at += 4) if (data[at] >= 128) return true;
  return false;
}

/** A PNG of a mask, white on black, of a photo's own size or of its working copy's; null is an empty mask. */
export async function png(mask, { width, height }) {
  const scaled = canvas(width, height);
  const pen = scaled.getContext("2d", { willReadFrequently: true });
  if (mask) pen.drawImage(mask, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data.fill(pixels.data[at + 3] >= 128 ? 255 : 0, at, at + 3);
    pixels.data[at + 3] = 255;
  }
  pen.putImageData(pixels, 0, 0);
  return blob(scaled, "image/png");
}

/** Draw a photo and its mask into a canvas, which is made as large as `side` allows. */
export function draw(onto, photo, side) {
  const { picture, mask } = photo;
  const scale = Math.min(1, side / Math.max(picture.width, picture.height));
  onto.width = Math.round(picture.width * scale);
  onto.height = Math.round(picture.height * scale);
  const pen = onto.getContext("2d");
  pen.drawImage(picture, 0, 0, onto.width, onto.height);
  if (!mask) return;
  pen.globalAlpha = 0.45;
  pen.drawImage(mask, 0, 0, onto.width, onto.height);
  pen.globalAlpha = 1;
}
