/**
 * From a picture to a model's input: laid over white, resized as Pillow does, bit for bit.
 *
 * @typedef {{data: Uint8Array | Uint8ClampedArray, width: number, height: number}} Picture  RGB, 3 bytes a pixel
 * @typedef {{width: number, height: number, method?: string, crop?: string}} Resize  px; the `resize` of card.json
 */

const PRECISION_BITS = 22;

/**
 * The weights with which input pixels are averaged into each output pixel, along one axis.
 *
 * The method is Pillow's (src/libImaging/Resample.c, `precompute_coeffs` and `normalize_coeffs_8bpc`) for its
 * bilinear filter: a triangle, widened when the picture shrinks, its weights rounded to 22 bits.
 *
 * @param {number} from  length of the axis before, px
 * @param {number} to  length of the axis after, px
 * @returns {{starts: Int32Array, counts: Int32Array, weights: Int32Array, stride: number}}
 */
function resampleWeights(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const stride = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(to);
  const counts = new Int32Array(to);
  const weights = new Int32Array(to * stride);
  const triangle = new Float64Array(stride);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(from, Math.trunc(center + support + 0.5)) - start;
    let sum = 0;
    for (let k = 0; k < count; k++) {
      triangle[k] = Math.max(0, 1 - Math.abs((k + start - center + 0.5) * (1 / support)));
      sum += triangle[k];
    }
    for (let k = 0; k < count; k++) {
      const share = sum === 0 ? triangle[k] : triangle[k] / sum;
      weights[i * stride + k] = Math.trunc(0.5 + share * (1 << PRECISION_BITS));
    }
    starts[i] = start;
    counts[i] = count;
  }
  return { starts, counts, weights, stride };
}

/**
 * Resample one axis of an interleaved RGB array; the other axis keeps its length.
 *
 * @param {Uint8Array | Uint8ClampedArray} data
 * @param {{from: number, to: number, lines: number, step: number, lineStep: number, toLineStep: number}} axis
 *   lengths in px; steps in array elements, `step` between neighbours along the axis (the same before and after),
 *   `lineStep` and `toLineStep` between neighbouring lines before and after
 * @returns {Uint8Array}
 */
function resampleAxis(data, { from, to, lines, step, lineStep, toLineStep }) {
  const { starts, counts, weights, stride } = resampleWeights(from, to);
  const out = new Uint8Array(lines * to * 3);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < to; i++) {
      let red = 1 << (PRECISION_BITS - 1);
      let green = red;
      let blue = red;
      let at = line * lineStep + starts[i] * step;
      for (let k = i * stride, end = k + counts[i]; k < end; k++, at += step) {
        red += data[at] * weights[k];
        green += data[at + 1] * weights[k];
        blue += data[at + 2] * weights[k];
      }
      const to3 = line * toLineStep + i * step;
      out[to3] = Math.min(255, red >> PRECISION_BITS);
      out[to3 + 1] = Math.min(255, green >> PRECISION_BITS);
      out[to3 + 2] = Math.min(255, blue >> PRECISION_BITS);
    }
  }
  return out;
}

const resampleWidth = ({ data, width, height }, to) => ({
  data: resampleAxis(data, { from: width, to, lines: height, step: 3, lineStep: width * 3, toLineStep: to * 3 }),
  width: to,
  height,
});

const resampleHeight = ({ data, width, height }, to) => ({
  data: resampleAxis(data, { from: height, to, lines: width, step: width * 3, lineStep: 3, toLineStep: 3 }),
  width,
  height: to,
});

/**
 * Resize without keeping the aspect, equal bit for bit to Pillow's `Image.resize((width, height), BILINEAR)`.
 *
 * The values between the two passes are rounded to 8 bits, so their order shows. Pillow before 13 went along the width
 * first; since 13.0 the height comes first where it loses more than twice as many pixels as the width.
 *
 * @param {Picture} picture
 * @param {number} width  px
 * @param {number} height  px
 * @returns {Picture}
 */
function stretch(picture, width, height) {
  const lost = picture.height - height;
  const heightFirst = lost > 0 && lost > 2 * (picture.width - width);
  let made = picture;
  if (heightFirst) made = resampleHeight(made, height);
  if (width !== made.width) made = resampleWidth(made, width);
  if (height !== made.height) made = resampleHeight(made, height);
  return made === picture ? { ...made, data: made.data.slice() } : made;
}

/** Copy `rows` runs of `length` elements from one interleaved RGB array into another. */
function copyRows(from, fromAt, fromStep, to, toAt, toStep, length, rows) {
  for (let row = 0; row < rows; row++) {
    const start = fromAt + row * fromStep;
    to.set(from.subarray(start, start + length), toAt + row * toStep);
  }
}

/** The largest box of the target's aspect in the middle of w x h px. */
function centerBox(w, h, width, height) {
  const wide = w * height > h * width;
  const boxWidth = wide ? Math.max(1, Math.floor((h * width) / height)) : w;
  const boxHeight = wide ? h : Math.max(1, Math.floor((w * height) / width));
  return { left: Math.floor((w - boxWidth) / 2), top: Math.floor((h - boxHeight) / 2), boxWidth, boxHeight };
}

/** Cut the largest box of the target's aspect out of the middle, then stretch it to the target. */
function resizeCenter(picture, width, height) {
  const { width: w, height: h } = picture;
  const { left, top, boxWidth, boxHeight } = centerBox(w, h, width, height);
  const data = new Uint8Array(boxWidth * boxHeight * 3);
  copyRows(picture.data, (top * w + left) * 3, w * 3, data, 0, boxWidth * 3, boxWidth * 3, boxHeight);
  return stretch({ data, width: boxWidth, height: boxHeight }, width, height);
}

/** Where w x h px lie in the target when they are fitted into its middle, keeping the aspect. */
function paddedBox(w, h, width, height) {
  const wide = w * height > h * width;
  const boxWidth = wide ? width : Math.max(1, Math.floor((w * height) / h));
  const boxHeight = wide ? Math.max(1, Math.floor((h * width) / w)) : height;
  return { left: Math.floor((width - boxWidth) / 2), top: Math.floor((height - boxHeight) / 2), boxWidth, boxHeight };
}

/** Resize to fit into the target, keeping the aspect, and paste into the middle of a black picture. */
function resizePad(picture, width, height) {
  const { left, top, boxWidth, boxHeight } = paddedBox(picture.width, picture.height, width, height);
  const inner = stretch(picture, boxWidth, boxHeight);
  const data = new Uint8Array(width * height * 3);
  copyRows(inner.data, 0, inner.width * 3, data, (top * width + left) * 3, width * 3, inner.width * 3, inner.height);
  return { data, width, height };
}

const CROPS = { stretch, center: resizeCenter, pad: resizePad };

/**
 * Resize a decoded picture to a model's input, as `exporters.pixels.resize` does in Python.
 *
 * @param {Picture} picture  any size of at least 1 x 1 px
 * @param {Resize} resize
 * @returns {Picture}  `resize.width` x `resize.height` px
 * @throws {Error} where the picture is empty, or the method or the crop is not one that is known
 */
export function resize(picture, { width, height, method = "bilinear", crop = "stretch" }) {
  if (method !== "bilinear") throw new Error(`There is no resize method '${method}'; expected bilinear.`);
  if (!Object.hasOwn(CROPS, crop)) {
    throw new Error(`There is no crop '${crop}'; expected ${Object.keys(CROPS).join(", ")}.`);
  }
  if (!(picture.width > 0 && picture.height > 0) || picture.data.length !== picture.width * picture.height * 3) {
    const size = `${picture.width} x ${picture.height} px`;
    throw new Error(`A picture of ${size} with ${picture.data.length} bytes is not RGB.`);
  }
  return CROPS[crop](picture, width, height);
}

/**
 * Which part of a picture the whole of the resized one stands for, as `exporters.pixels.window` says in Python.
 *
 * @param {number} w  of the picture, px
 * @param {number} h  of the picture, px
 * @param {Resize} resize
 * @returns {[number, number, number, number]} left, top, right, bottom in px of the picture; with `pad` it reaches beyond
 */
export function shownWindow(w, h, { width, height, crop = "stretch" }) {
  if (crop === "center") {
    const { left, top, boxWidth, boxHeight } = centerBox(w, h, width, height);
    return [left, top, left + boxWidth, top + boxHeight];
  }
  if (crop !== "pad") return [0, 0, w, h];
  const { left, top, boxWidth, boxHeight } = paddedBox(w, h, width, height);
  const [across, down] = [w / boxWidth, h / boxHeight];
  return [-left * across, -top * down, (width - left) * across, (height - top) * down];
}

/**
 * Lay an RGBA picture over white.
 *
 * @param {Uint8Array | Uint8ClampedArray} rgba  4 bytes a pixel, colours not premultiplied
 * @param {number} width  px
 * @param {number} height  px
 * @returns {Picture}
 */
export function overWhite(rgba, width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    const alpha = rgba[from + 3];
    const white = 255 * (255 - alpha) + 127;
    for (let c = 0; c < 3; c++) data[to + c] = Math.floor((rgba[from + c] * alpha + white) / 255);
  }
  return { data, width, height };
}

/**
 * Decode a picture in a browser: upright by its EXIF orientation, its stored values unconverted, laid over white.
 *
 * @param {Blob | ImageBitmapSource} source  a file, or anything that can be drawn
 * @returns {Promise<Picture>}
 * @throws {DOMException} where the browser cannot decode it
 */
export async function imageToRgb(source) {
  const bitmap = await createImageBitmap(source, {
    imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none",
  });
  try {
    const { width, height } = bitmap;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return overWhite(context.getImageData(0, 0, width, height).data, width, height);
  } finally {
    bitmap.close();
  }
}
