/** Drawing on a canvas with mouse, finger or pen, as figures on white paper. */

const PAPER = "#ffffff";
const INK = "#20242c";
const LONGEST_SIDE_PX = 384;
/** As wide, in shares of the side, as the strokes that the embedded data set is drawn with. */
const STROKE = 0.03;

/**
 * Make a canvas one to draw on.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {{hint: HTMLElement, changed: () => void}} options  `hint` is shown while the canvas is empty; `changed` is
 *   called while something is being drawn
 * @returns {{clear: () => void, show: (bitmap: ImageBitmap | OffscreenCanvas | null) => void,
 *   shape: (size: {width: number, height: number}) => boolean}}  empty it, show a picture on it, give it another
 *   aspect, which empties it and gives true
 */
export function startDrawing(canvas, { hint, changed }) {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let foreign = false;
  /** @type {{x: number, y: number} | null} */
  let last = null;
  // A second finger draws nothing.
  let finger = 0;

  function clear() {
    pen.fillStyle = PAPER;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    hint.hidden = false;
    foreign = false;
  }

  function show(bitmap) {
    clear();
    hint.hidden = true;
    foreign = true;
    if (!bitmap) return;
    const scale = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    pen.drawImage(bitmap, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
    bitmap.close?.();
  }

  function shape({ width, height }) {
    const scale = LONGEST_SIDE_PX / Math.max(width, height);
    const size = [Math.round(width * scale), Math.round(height * scale)];
    if (size[0] === canvas.width && size[1] === canvas.height) return false;
    [canvas.width, canvas.height] = size;
    clear();
    return true;
  }

  const place = ({ clientX, clientY }) => {
    const box = canvas.getBoundingClientRect();
    return {
      x: ((clientX - box.left) / box.width) * canvas.width,
      y: ((clientY - box.top) / box.height) * canvas.height,
    };
  };

  function lineTo(point) {
    pen.strokeStyle = INK;
    pen.lineWidth = STROKE * Math.min(canvas.width, canvas.height);
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(last.x, last.y);
    pen.lineTo(point.x, point.y);
    pen.stroke();
    last = point;
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || last) return;
    if (foreign) clear();
    hint.hidden = true;
    finger = event.pointerId;
    canvas.setPointerCapture(finger);
    last = place(event);
    lineTo(last);
    changed();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last || event.pointerId !== finger) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    for (const step of steps.length > 0 ? steps : [event]) lineTo(place(step));
    changed();
  });
  const lift = (/** @type {any} */ { pointerId }) => {
    if (pointerId === finger) last = null;
  };
  for (const each of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(each, lift);
  clear();
  return { clear, show, shape };
}
