/** Answers as elements of the page: bars, numbers, boxes and areas; and what is drawn over the picture. */

import { classesOf, shownWindow } from "./predict.js";

// An embedding has hundreds of numbers, which nobody reads one by one.
const SHOWN_VALUES = 6;
const BOX_COLOR = "#e5484d";
const MASK_OPACITY = 0.55;
// Of a turn of the circle of hues: neighbouring classes are far apart, however many there are.
const GOLDEN = (Math.sqrt(5) - 1) / 2;

/** Make an element of a class that holds a text or other elements. */
export function element(tag, className, ...content) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...content);
  return made;
}

/** A share 0..1 in words. */
export const percent = (share) => `${(share * 100).toFixed(1)} %`;

/** The color of a class of a segmentation, as canvas and style sheets take it. */
const colorOf = (index) => (index === 0 ? "hsl(0 0% 25%)" : `hsl(${((index * GOLDEN) % 1) * 360} 75% 55%)`);

/**
 * What is in one line of bars: a label, its share in words, and a bar that only eyes need.
 *
 * @param {{label: string, share: number, color?: string, yes?: boolean}} line
 */
function bar({ label, share, color, yes }) {
  const fill = element("span", "fill");
  fill.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  if (color) fill.style.background = color;
  const track = element("span", "track", fill);
  track.setAttribute("aria-hidden", "true");
  const name = element("span", "label", label);
  return element("li", yes ? "yes" : "", name, element("span", "share", percent(share)), track);
}

const barOf = (chosen) => ({ label, probability }) => bar({ label, share: probability, yes: chosen.has(label) });

function rows(pairs) {
  return element("dl", "numbers", ...pairs.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

const inUnit = (value, unit) => `${Number(value.toPrecision(6))} ${unit}`.trim();

/** One sentence of an answer, as `explain` gives it, for the headline. */
export function sentence(said, name) {
  if (said.areas) return said.areas.length > 0 ? `${said.areas[0].label}, ${percent(said.areas[0].share)}` : name;
  if (said.box_px) return `${name}: ${placeOf(said.box_px)}`;
  if (said.vector) return `${name}: ${said.vector.length} numbers`;
  if (said.values) return Object.entries(said.values).map(([column, value]) => `${column} ${inUnit(value, said.unit)}`).join(", ");
  if (said.labels) return said.labels.map(({ label }) => label).join(" + ") || "none";
  if (said.label !== undefined) return `${said.label}, rank ${said.rank}`;
  return `${said.top[0].label}, ${percent(said.top[0].probability)}`;
}

const placeOf = ({ x_min, y_min, x_max, y_max }) =>
  `x ${x_min.toFixed(0)} to ${x_max.toFixed(0)} px, y ${y_min.toFixed(0)} to ${y_max.toFixed(0)} px`;

/**
 * The elements that show an answer.
 *
 * @param {object} said  what `explain` gave
 * @param {import("./predict.js").Output} output
 * @returns {HTMLElement[]}
 */
export function elementsOf(said, output) {
  if (said.areas) {
    const colored = said.areas.map(({ label, share }) => bar({ label, share, color: colorOf(indexOf(label, output)) }));
    return [element("ul", "bars areas", ...colored)];
  }
  if (said.box_px) return [rows(Object.entries(said.box_px).map(([side, px]) => [side, `${px.toFixed(1)} px, ${percent(said.box[side])}`]))];
  if (said.vector) {
    const length = Math.hypot(...said.vector).toFixed(4);
    const shown = said.vector.slice(0, SHOWN_VALUES).map((value) => value.toPrecision(4)).join(", ");
    const more = said.vector.length > SHOWN_VALUES ? ", ..." : "";
    return [rows([["numbers", String(said.vector.length)], ["length", length], ["first", shown + more]])];
  }
  if (said.values) return [rows(Object.entries(said.values).map(([column, value]) => [column, inUnit(value, said.unit)]))];
  const bars = element("ol", "bars", ...said.top.map(barOf(new Set((said.labels ?? []).map(({ label }) => label)))));
  const several = said.labels !== undefined || said.label !== undefined;
  return several ? [element("p", "decided", sentence(said, output.name)), bars] : [bars];
}

const indexOf = (label, { labels }) => (labels.includes(label) ? labels.indexOf(label) : Number(label));

/**
 * Draw a box or a mask over the picture.
 *
 * @param {CanvasRenderingContext2D} pen  of a canvas that lies over the picture
 * @param {{said: object, data: Float32Array, output: import("./predict.js").Output}} answer
 * @param {import("./explain.js").Seen} seen
 * @param {{left: number, top: number, scale: number}} place  where the picture is on the canvas, px of it
 */
export function drawOver(pen, { said, data, output }, seen, { left, top, scale }) {
  if (said.box_px) {
    const { x_min, y_min, x_max, y_max } = said.box_px;
    pen.strokeStyle = BOX_COLOR;
    pen.lineWidth = 3;
    pen.strokeRect(left + x_min * scale, top + y_min * scale, (x_max - x_min) * scale, (y_max - y_min) * scale);
  }
  if (said.areas) {
    const [height, width, classes] = output.shape;
    const small = new OffscreenCanvas(width, height);
    const brush = small.getContext("2d");
    classesOf(data, classes).forEach((each, i) => {
      brush.fillStyle = colorOf(each);
      brush.fillRect(i % width, Math.floor(i / width), 1, 1);
    });
    const [x, y, right, bottom] = shownWindow(seen.width, seen.height, seen.resize);
    pen.save();
    // What is filled up with black lies beside the picture.
    pen.beginPath();
    pen.rect(left, top, seen.width * scale, seen.height * scale);
    pen.clip();
    pen.globalAlpha = MASK_OPACITY;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, left + x * scale, top + y * scale, (right - x) * scale, (bottom - y) * scale);
    pen.restore();
  }
}
